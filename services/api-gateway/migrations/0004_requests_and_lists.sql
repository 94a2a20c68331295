-- Request ids, and what lists are filtered and ordered by.

-- What was done under a request id: written by the transaction that did it.
CREATE TABLE requests (
    project_id TEXT NOT NULL, id TEXT NOT NULL, method TEXT NOT NULL, fingerprint TEXT NOT NULL, resource TEXT NOT NULL,
    created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL,
    PRIMARY KEY (project_id, id)
);
CREATE INDEX requests_expires ON requests (expires_at);

-- A host's name beside its id, to filter by what is shown.
ALTER TABLE instances ADD COLUMN host_name TEXT NOT NULL DEFAULT '';
ALTER TABLE volumes ADD COLUMN host_name TEXT NOT NULL DEFAULT '';
ALTER TABLE ports ADD COLUMN host_name TEXT NOT NULL DEFAULT '';
UPDATE instances SET host_name = COALESCE((SELECT name FROM hosts WHERE hosts.id = instances.host_id), '');
UPDATE volumes SET host_name = COALESCE((SELECT name FROM hosts WHERE hosts.id = volumes.host_id), '');
UPDATE ports SET host_name = COALESCE((SELECT name FROM hosts WHERE hosts.id = ports.host_id), '');

-- Pages by age and by name. Instances are the many: theirs are found by status and by host too.
CREATE INDEX instances_by_name ON instances (project_id, name, id);
CREATE INDEX instances_by_status ON instances (project_id, status, created_at, id);
CREATE INDEX instances_by_host ON instances (project_id, host_name, created_at, id);
CREATE INDEX volumes_by_name ON volumes (project_id, name, id);
CREATE INDEX volumes_by_status ON volumes (project_id, status, created_at, id);
CREATE INDEX ports_by_name ON ports (project_id, name, id);
CREATE INDEX images_page ON images (project_id, created_at, id);
CREATE INDEX images_by_name ON images (project_id, name, id);
CREATE INDEX images_public_page ON images (public, created_at, id);
CREATE INDEX images_public_by_name ON images (public, name, id);
CREATE INDEX vpcs_page ON vpcs (project_id, created_at, id);
CREATE INDEX vpcs_by_name ON vpcs (project_id, name, id);
CREATE INDEX subnets_page ON subnets (vpc_id, created_at, id);
CREATE INDEX subnets_by_name ON subnets (vpc_id, name, id);
CREATE INDEX hosts_page ON hosts (created_at, id);
CREATE INDEX hosts_by_name ON hosts (name, id);
CREATE INDEX projects_page ON projects (created_at, id);
CREATE INDEX projects_by_name ON projects (name, id);
CREATE INDEX instance_types_page ON instance_types (created_at, id);
CREATE INDEX instance_types_by_name ON instance_types (name, id);

-- What retention looks for.
CREATE INDEX instances_deleted ON instances (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX volumes_deleted ON volumes (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX ports_deleted ON ports (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX images_deleted ON images (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX vpcs_deleted ON vpcs (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX subnets_deleted ON subnets (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX events_at ON events (at);
