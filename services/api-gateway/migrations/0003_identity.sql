-- Keys that are rotated, and quotas of projects.

-- The secret before the current one, while it still opens.
ALTER TABLE api_keys ADD COLUMN old_hash TEXT;
CREATE UNIQUE INDEX api_keys_old_hash ON api_keys (old_hash) WHERE old_hash IS NOT NULL;
ALTER TABLE api_keys ADD COLUMN role TEXT NOT NULL DEFAULT 'viewer';
-- A quotation mark within a text of the body stands behind a backslash, so this is the key's own role.
UPDATE api_keys SET role = CASE
    WHEN body LIKE '%"role":"operator"%' THEN 'operator'
    WHEN body LIKE '%"role":"admin"%' THEN 'admin'
    WHEN body LIKE '%"role":"member"%' THEN 'member'
    ELSE 'viewer' END;
CREATE INDEX api_keys_role ON api_keys (role) WHERE deleted_at IS NULL;
CREATE INDEX api_keys_page ON api_keys (project_id, created_at, id);

-- One row for each live project: exact counters, moved in the transaction of what they count, and the limits where the project has its own.
-- The counters of what was there before are filled in by the gateway (sql/quota.rs): the engines read JSON differently.
CREATE TABLE quotas (
    project_id TEXT PRIMARY KEY,
    instances_used BIGINT NOT NULL DEFAULT 0, instances_limit BIGINT,
    vcpus_used BIGINT NOT NULL DEFAULT 0, vcpus_limit BIGINT,
    memory_mib_used BIGINT NOT NULL DEFAULT 0, memory_mib_limit BIGINT,
    volume_gib_used BIGINT NOT NULL DEFAULT 0, volume_gib_limit BIGINT,
    snapshots_used BIGINT NOT NULL DEFAULT 0, snapshots_limit BIGINT,
    vpcs_used BIGINT NOT NULL DEFAULT 0, vpcs_limit BIGINT,
    floating_ips_used BIGINT NOT NULL DEFAULT 0, floating_ips_limit BIGINT
);
INSERT INTO quotas (project_id) SELECT id FROM projects WHERE deleted_at IS NULL;
-- The cloud's own: held by what must not happen twice at a time in the whole cloud.
INSERT INTO quotas (project_id) VALUES ('00000000-0000-0000-0000-000000000000');
