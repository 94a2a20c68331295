-- What is remembered of deletions, for longer than the rows are kept: what turns up on a host under one of these ids may be removed from it.
-- The retention of rows does not touch this table.
CREATE TABLE tombstones (
    kind TEXT NOT NULL, id TEXT NOT NULL, deleted_at BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX tombstones_deleted ON tombstones (deleted_at);
INSERT INTO tombstones (kind, id, deleted_at) SELECT 'instance', id, deleted_at FROM instances WHERE deleted_at IS NOT NULL;
INSERT INTO tombstones (kind, id, deleted_at) SELECT 'volume', id, deleted_at FROM volumes WHERE deleted_at IS NOT NULL;
INSERT INTO tombstones (kind, id, deleted_at) SELECT 'vpc', id, deleted_at FROM vpcs WHERE deleted_at IS NOT NULL;

-- What hosts have with this cloud's tag and no live row says is there.
CREATE TABLE orphans (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    host_id TEXT NOT NULL, object_id TEXT NOT NULL,
    revision BIGINT NOT NULL DEFAULT 0, created_revision BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX orphans_object ON orphans (host_id, object_id) WHERE deleted_at IS NULL;

CREATE INDEX orphans_revision ON orphans (revision);

-- Inventories read a host's ports and volumes, and the VPCs it takes part in.
CREATE INDEX ports_host ON ports (host_id) WHERE deleted_at IS NULL;
