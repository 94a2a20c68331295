-- What a host's rows are in a word (how many, and the sum of their revisions) is read from these alone, at every inventory. That of the ports also names
-- their VPCs.
DROP INDEX instances_host;
CREATE INDEX instances_host ON instances (host_id, revision) WHERE deleted_at IS NULL;
DROP INDEX volumes_host;
CREATE INDEX volumes_host ON volumes (host_id, revision) WHERE deleted_at IS NULL;
DROP INDEX snapshots_host;
CREATE INDEX snapshots_host ON snapshots (host_id, revision) WHERE deleted_at IS NULL;
DROP INDEX ports_host;
CREATE INDEX ports_host ON ports (host_id, vpc_id, revision) WHERE deleted_at IS NULL;
