WITH moved AS
(UPDATE smp.document
SET state=given.to_state, version=(given.base + %(base_1)s::INTEGER), updated_at=clock_timestamp()
FROM json_to_recordset(CAST(%(given)s::VARCHAR AS JSON)) AS given(id UUID, base INTEGER, from_state TEXT, to_state TEXT, lane TEXT)
WHERE smp.document.id = given.id AND smp.document.version = given.base
RETURNING smp.document.id, smp.document.version, smp.document.life, smp.document.generation, smp.document.correlation_id, given.from_state, given.to_state, given.lane),
told AS
(INSERT INTO smp.transition (document_id, version, life, generation, correlation_id, trigger, from_state, to_state, by, reason)
SELECT moved.id AS id, moved.version AS version, moved.life AS life, moved.generation AS generation, moved.correlation_id AS correlation_id, %(param_1)s::VARCHAR AS anon_1, moved.from_state AS from_state, moved.to_state AS to_state, %(by)s::VARCHAR AS anon_2, %(reason)s::VARCHAR AS anon_3
FROM moved),
queued AS
(UPDATE smp.work
SET state=moved.to_state, lane=CASE WHEN (moved.lane = 'ready' AND smp.work.lane = 'deferred') THEN 'deferred' ELSE moved.lane END, entered_at=clock_timestamp(), claim_seq=nextval('smp.claim_seq'), attempt=%(param_2)s::SMALLINT, worker=%(param_3)s::BIGINT, deadline_at=%(param_4)s::TIMESTAMP WITH TIME ZONE
FROM moved
WHERE smp.work.document_id = moved.id
RETURNING smp.work.document_id)
SELECT moved.from_state, (SELECT pg_notify(%(pg_notify_2)s::VARCHAR, %(pg_notify_3)s::VARCHAR) AS pg_notify_1
FROM queued
LIMIT %(param_5)s::INTEGER) AS notified
FROM moved
ORDER BY moved.id;
