WITH born AS
(INSERT INTO smp.document (id, tenant, source_uri, name, size_bytes, path, content_sha256, correlation_id, traceparent, metadata, state, input_sha256, version, life, generation)
SELECT given.id AS id, given.tenant AS tenant, given.source_uri AS source_uri, given.name AS name, given.size_bytes AS size_bytes, given.path AS path, given.content_sha256 AS content_sha256, given.correlation_id AS correlation_id, given.traceparent AS traceparent, given.metadata AS metadata, given.state AS state, given.content_sha256 AS content_sha256__1, 1, 1, 1
FROM json_to_recordset(CAST(%(given)s::VARCHAR AS JSON)) AS given(id UUID, tenant TEXT, source_uri TEXT, name TEXT, size_bytes BIGINT, path TEXT, content_sha256 TEXT, correlation_id TEXT, traceparent TEXT, metadata JSONB, state TEXT, lane TEXT, priority SMALLINT, run_at TIMESTAMP WITH TIME ZONE)
ORDER BY given.id
ON CONFLICT (id) DO NOTHING
RETURNING smp.document.id, smp.document.state, smp.document.correlation_id),
told AS
(INSERT INTO smp.transition (document_id, version, life, generation, trigger, to_state, correlation_id)
SELECT born.id AS id, 1, 1, 1, 'submit', born.state AS state, born.correlation_id AS correlation_id
FROM born),
queued AS
(INSERT INTO smp.work (document_id, tenant, state, lane, priority, run_at)
SELECT given.id AS id, given.tenant AS tenant, given.state AS state, CASE WHEN (given.lane = 'ready' AND given.run_at > clock_timestamp()) THEN %(param_1)s::VARCHAR ELSE given.lane END AS anon_1, given.priority AS priority, coalesce(given.run_at, clock_timestamp()) AS coalesce_1
FROM json_to_recordset(CAST(%(given)s::VARCHAR AS JSON)) AS given(id UUID, tenant TEXT, source_uri TEXT, name TEXT, size_bytes BIGINT, path TEXT, content_sha256 TEXT, correlation_id TEXT, traceparent TEXT, metadata JSONB, state TEXT, lane TEXT, priority SMALLINT, run_at TIMESTAMP WITH TIME ZONE)
JOIN born ON born.id = given.id
ORDER BY given.id)
SELECT born.id, (SELECT pg_notify(%(pg_notify_2)s::VARCHAR, %(pg_notify_3)s::VARCHAR) AS pg_notify_1
FROM born
LIMIT %(param_2)s::INTEGER) AS notified
FROM born
ORDER BY born.id;
