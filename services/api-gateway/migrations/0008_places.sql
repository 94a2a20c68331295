-- What operators say of hosts: capacity is promised only of those that get new instances.
ALTER TABLE hosts ADD COLUMN mode TEXT NOT NULL DEFAULT 'ACTIVE';

-- How busy a host's processors are, as the gateway says that hears its compute-agent.
ALTER TABLE agents ADD COLUMN load TEXT NOT NULL DEFAULT '';

-- Which hosts have instances of a group, without looking at all instances.
ALTER TABLE instances ADD COLUMN affinity_group TEXT NOT NULL DEFAULT '';
CREATE INDEX instances_group ON instances (project_id, affinity_group, host_id) WHERE deleted_at IS NULL AND affinity_group <> '';
