-- The transaction that made a row: whoever watches is told CREATED where that came after what was seen, however often the row was
-- written since. Rows of before this release are older than any resume token.
ALTER TABLE projects ADD COLUMN created_revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN created_revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE instance_types ADD COLUMN created_revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE hosts ADD COLUMN created_revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE images ADD COLUMN created_revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN created_revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE volumes ADD COLUMN created_revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE vpcs ADD COLUMN created_revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE subnets ADD COLUMN created_revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE ports ADD COLUMN created_revision BIGINT NOT NULL DEFAULT 0;
