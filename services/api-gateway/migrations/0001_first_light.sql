-- Release 0.1.0. Portable between SQLite and PostgreSQL: TEXT ids, BIGINT microseconds, TEXT JSON.
-- Each kind of row: what is constrained or searched is a column, all else is in `body`.

CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO counters (name, value) VALUES ('revision', 0), ('vni', 4096);

CREATE TABLE projects (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL
);
CREATE UNIQUE INDEX projects_name ON projects (project_id, name) WHERE deleted_at IS NULL;

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE UNIQUE INDEX api_keys_name ON api_keys (project_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX api_keys_hash ON api_keys (hash);

CREATE TABLE instance_types (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL
);
CREATE UNIQUE INDEX instance_types_name ON instance_types (project_id, name) WHERE deleted_at IS NULL;

CREATE TABLE hosts (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    vcpus_total BIGINT NOT NULL DEFAULT 0, vcpus_used BIGINT NOT NULL DEFAULT 0,
    memory_total BIGINT NOT NULL DEFAULT 0, memory_used BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX hosts_name ON hosts (project_id, name) WHERE deleted_at IS NULL;

CREATE TABLE images (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    status TEXT NOT NULL, public BIGINT NOT NULL
);
CREATE UNIQUE INDEX images_name ON images (project_id, name) WHERE deleted_at IS NULL;
CREATE INDEX images_public ON images (public, name) WHERE deleted_at IS NULL;

CREATE TABLE instances (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    host_id TEXT NOT NULL, status TEXT NOT NULL
);
CREATE UNIQUE INDEX instances_name ON instances (project_id, name) WHERE deleted_at IS NULL;
CREATE INDEX instances_page ON instances (project_id, created_at, id);
CREATE INDEX instances_host ON instances (host_id) WHERE deleted_at IS NULL;
CREATE INDEX instances_status ON instances (status) WHERE deleted_at IS NULL;

CREATE TABLE volumes (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    host_id TEXT, instance_id TEXT, status TEXT NOT NULL
);
CREATE UNIQUE INDEX volumes_name ON volumes (project_id, name) WHERE deleted_at IS NULL;
CREATE INDEX volumes_page ON volumes (project_id, created_at, id);
CREATE INDEX volumes_instance ON volumes (instance_id) WHERE deleted_at IS NULL;
CREATE INDEX volumes_host ON volumes (host_id) WHERE deleted_at IS NULL;

CREATE TABLE vpcs (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    vni BIGINT NOT NULL, generation BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX vpcs_name ON vpcs (project_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX vpcs_vni ON vpcs (vni) WHERE deleted_at IS NULL;

CREATE TABLE subnets (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    vpc_id TEXT NOT NULL, cursor BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX subnets_name ON subnets (vpc_id, name) WHERE deleted_at IS NULL;

CREATE TABLE ports (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    vpc_id TEXT NOT NULL, subnet_id TEXT NOT NULL, instance_id TEXT NOT NULL, host_id TEXT NOT NULL,
    ip BIGINT NOT NULL, mac TEXT NOT NULL
);
CREATE UNIQUE INDEX ports_name ON ports (project_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX ports_ip ON ports (subnet_id, ip) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX ports_mac ON ports (vpc_id, mac) WHERE deleted_at IS NULL;
CREATE INDEX ports_instance ON ports (instance_id) WHERE deleted_at IS NULL;
CREATE INDEX ports_page ON ports (project_id, created_at, id);

CREATE TABLE work (
    kind TEXT NOT NULL, id TEXT NOT NULL, due_at BIGINT, sequence BIGINT NOT NULL DEFAULT 1,
    lease_token TEXT, lease_until BIGINT, attempts BIGINT NOT NULL DEFAULT 0, last_error TEXT,
    trace TEXT,
    PRIMARY KEY (kind, id)
);
CREATE INDEX work_due ON work (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE events (
    revision BIGINT PRIMARY KEY, id TEXT NOT NULL, at BIGINT NOT NULL, project_id TEXT NOT NULL, kind TEXT NOT NULL,
    resource_id TEXT NOT NULL, resource_name TEXT NOT NULL, action TEXT NOT NULL, actor TEXT NOT NULL,
    source TEXT NOT NULL, outcome TEXT NOT NULL, message TEXT NOT NULL, request_id TEXT NOT NULL
);
CREATE INDEX events_project ON events (project_id, revision);
CREATE INDEX events_resource ON events (resource_id, revision);
