WITH born AS
(INSERT INTO smp.document (id, tenant, source_uri, name, state, version, life, generation, size_bytes, path, content_sha256, input_sha256, correlation_id, traceparent, metadata, parent_id, depth)
VALUES (%(id)s::UUID, %(tenant)s::VARCHAR, %(source_uri)s::VARCHAR, %(name)s::VARCHAR, %(state)s::VARCHAR, %(param_5)s::INTEGER, %(param_6)s::INTEGER, %(param_7)s::INTEGER, %(size_bytes)s::BIGINT, %(path)s::VARCHAR, %(content_sha256)s::VARCHAR, %(content_sha256)s::VARCHAR, %(correlation_id)s::VARCHAR, %(traceparent)s::VARCHAR, %(metadata)s::JSONB, %(parent_id)s::UUID, %(depth)s::SMALLINT)
ON CONFLICT (id) DO NOTHING
RETURNING smp.document.id, smp.document.state, smp.document.tenant, smp.document.correlation_id, smp.document.content_sha256),
told AS
(INSERT INTO smp.transition (document_id, version, life, generation, trigger, to_state, by, reason, correlation_id)
SELECT born.id AS id, %(param_1)s::INTEGER AS anon_1, %(param_2)s::INTEGER AS anon_2, %(param_3)s::INTEGER AS anon_3, %(param_4)s::VARCHAR AS anon_4, born.state AS state, %(by)s::VARCHAR AS anon_5, %(reason)s::VARCHAR AS anon_6, born.correlation_id AS correlation_id
FROM born),
queued AS
(INSERT INTO smp.work (document_id, tenant, state, lane, priority, run_at)
SELECT born.id AS id, born.tenant AS tenant, born.state AS state, CASE WHEN (%(lane)s::VARCHAR = %(param_8)s::VARCHAR AND %(run_at)s::TIMESTAMP WITH TIME ZONE > clock_timestamp()) THEN %(param_9)s::VARCHAR ELSE %(lane)s::VARCHAR END AS anon_7, %(priority)s::SMALLINT AS anon_8, coalesce(%(run_at)s::TIMESTAMP WITH TIME ZONE, clock_timestamp()) AS coalesce_1
FROM born),
kept AS
(INSERT INTO smp.blob (document_id, sha256, content, key)
SELECT born.id AS id, born.content_sha256 AS content_sha256, CAST(%(content)s AS BYTEA) AS anon_9, CAST(%(blob_key)s::VARCHAR AS TEXT) AS anon_10
FROM born
WHERE CAST(%(content)s AS BYTEA) IS NOT NULL OR CAST(%(blob_key)s::VARCHAR AS TEXT) IS NOT NULL)
SELECT born.id, pg_notify(%(pg_notify_1)s::VARCHAR, %(pg_notify_2)s::VARCHAR) AS notified
FROM born;
