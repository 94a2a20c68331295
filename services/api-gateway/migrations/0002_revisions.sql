-- Every row knows the transaction that last wrote it, so that whoever watches can ask for what came after one that it has seen: see
-- `adapters/sql/changes.rs`.
ALTER TABLE projects ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE instance_types ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE hosts ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE images ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE volumes ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE vpcs ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE subnets ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE ports ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;

CREATE INDEX projects_revision ON projects (revision);
CREATE INDEX api_keys_revision ON api_keys (revision);
CREATE INDEX hosts_revision ON hosts (revision);
CREATE INDEX images_revision ON images (revision);
CREATE INDEX instances_revision ON instances (revision);
CREATE INDEX volumes_revision ON volumes (revision);
CREATE INDEX vpcs_revision ON vpcs (revision);
CREATE INDEX subnets_revision ON subnets (revision);
CREATE INDEX ports_revision ON ports (revision);

-- What a VPC's snapshot reads, at every launch into it.
CREATE INDEX subnets_vpc ON subnets (vpc_id) WHERE deleted_at IS NULL;
CREATE INDEX ports_vpc ON ports (vpc_id) WHERE deleted_at IS NULL;

-- How full a host is, in thousandths of its memory: placement takes the emptiest without looking at all of them.
ALTER TABLE hosts ADD COLUMN fill BIGINT NOT NULL DEFAULT 0;
UPDATE hosts SET fill = (memory_used * 1000) / memory_total WHERE memory_total > 0;
CREATE INDEX hosts_fill ON hosts (fill, id) WHERE deleted_at IS NULL;

-- What gateways on one database tell each other of the agents that they hear. Unused where one gateway owns the database.
CREATE TABLE agents (
    host_id TEXT NOT NULL, role TEXT NOT NULL, session TEXT NOT NULL, endpoint TEXT NOT NULL, version TEXT NOT NULL,
    seen_at BIGINT NOT NULL, backend_error TEXT NOT NULL,
    PRIMARY KEY (host_id, role)
);
