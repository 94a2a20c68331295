-- Join tokens, the certificates of hosts, and the authorities that certificates come from (their keys sealed by the operator's master key).
CREATE TABLE join_tokens (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    revision BIGINT NOT NULL DEFAULT 0, created_revision BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE host_certificates (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    host_id TEXT NOT NULL, serial TEXT NOT NULL, revoked BIGINT NOT NULL,
    revision BIGINT NOT NULL DEFAULT 0, created_revision BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX host_certificates_serial ON host_certificates (serial);
CREATE INDEX host_certificates_host ON host_certificates (host_id);
-- Every gateway asks for these once a second.
CREATE INDEX host_certificates_revoked ON host_certificates (revoked) WHERE revoked = 1;

CREATE TABLE authorities (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, deleted_at BIGINT, body TEXT NOT NULL,
    revision BIGINT NOT NULL DEFAULT 0, created_revision BIGINT NOT NULL DEFAULT 0
);
-- Of several gateways that make the next authority at once, one does.
CREATE UNIQUE INDEX authorities_name ON authorities (name) WHERE deleted_at IS NULL;
