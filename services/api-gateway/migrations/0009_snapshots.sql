-- Snapshots of volumes, and what volumes are copies of.
CREATE TABLE snapshots (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    host_id TEXT NOT NULL, host_name TEXT NOT NULL, volume_id TEXT NOT NULL, status TEXT NOT NULL,
    revision BIGINT NOT NULL DEFAULT 0, created_revision BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX snapshots_name ON snapshots (project_id, name) WHERE deleted_at IS NULL;
CREATE INDEX snapshots_page ON snapshots (project_id, created_at, id);
CREATE INDEX snapshots_by_name ON snapshots (project_id, name, id);
CREATE INDEX snapshots_by_status ON snapshots (project_id, status, created_at, id);
CREATE INDEX snapshots_host ON snapshots (host_id) WHERE deleted_at IS NULL;
CREATE INDEX snapshots_volume ON snapshots (volume_id) WHERE deleted_at IS NULL;
CREATE INDEX snapshots_revision ON snapshots (revision);
CREATE INDEX snapshots_deleted ON snapshots (deleted_at) WHERE deleted_at IS NOT NULL;

-- The snapshot or the volume that a volume is a copy of: neither goes while the copy is made.
ALTER TABLE volumes ADD COLUMN source_id TEXT;
CREATE INDEX volumes_source ON volumes (source_id) WHERE deleted_at IS NULL AND source_id IS NOT NULL;
