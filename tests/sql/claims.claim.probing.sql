WITH stage_0 AS MATERIALIZED
(SELECT found.document_id AS document_id, %(deadline_0)s AS deadline
FROM unnest(%(states_0)s::TEXT[]) AS place(state)
JOIN LATERAL (SELECT w.document_id AS document_id
FROM smp.work AS w
WHERE w.lane = 'ready' AND w.state = place.state AND NOT w.alone
ORDER BY w.priority, w.run_at, w.document_id
LIMIT %(free_0)s::INTEGER
FOR NO KEY UPDATE SKIP LOCKED) AS found ON true
WHERE NOT (EXISTS (SELECT *
FROM smp.pause
WHERE smp.pause.stage = %(stage_1)s::VARCHAR AND smp.pause.until > statement_timestamp())) AND NOT ((EXISTS (SELECT *
FROM smp.breaker
WHERE smp.breaker.provider = %(param_2)s::VARCHAR AND smp.breaker.state != 'closed' AND smp.breaker.probe_worker IS DISTINCT
FROM %(worker)s::BIGINT)) OR (EXISTS (SELECT *
FROM smp.budget
WHERE smp.budget.provider = %(param_2)s::VARCHAR AND smp.budget.taken_until > statement_timestamp() + smp.budget.hold_seconds * interval '1 second')))
LIMIT %(free_0)s::INTEGER),
picked AS
(SELECT stage_0.document_id AS document_id, stage_0.deadline AS deadline
FROM stage_0
LIMIT %(documents)s::INTEGER),
claimed AS
(UPDATE smp.work
SET lane=%(param_1)s::VARCHAR, claim_seq=nextval('smp.claim_seq'), attempt=(smp.work.attempt + %(attempt_1)s::SMALLINT), worker=%(worker)s::BIGINT, deadline_at=(clock_timestamp() + (SELECT max(picked.deadline) AS max_1
FROM picked
WHERE picked.document_id = smp.work.document_id) * interval '1 second')
WHERE smp.work.document_id = ANY (array((SELECT picked.document_id
FROM picked))) AND smp.work.lane = 'ready' AND (EXISTS (SELECT *
FROM smp.worker
WHERE smp.worker.id = %(worker)s::BIGINT AND smp.worker.dead_at IS NULL))
RETURNING smp.work.document_id, smp.work.claim_seq, smp.work.attempt, smp.work.crashes, smp.work.worker, smp.work.deadline_at, smp.work.entered_at)
SELECT claimed.document_id, claimed.claim_seq, claimed.attempt, claimed.crashes, claimed.worker, claimed.deadline_at, claimed.entered_at, smp.document.id, smp.document.tenant, smp.document.source_uri, smp.document.name, smp.document.state, smp.document.version, smp.document.life, smp.document.generation, smp.document.media_type, smp.document.size_bytes, smp.document.content_sha256, smp.document.input_sha256, smp.document.text_sha256, smp.document.published_sha256, smp.document.text_chars, smp.document.chunk_count, smp.document.vector_count, smp.document.correlation_id, smp.document.last_error, smp.document.metadata, smp.document.parent_id, smp.document.depth, smp.document.children, smp.document.created_at, smp.document.updated_at
FROM claimed
JOIN smp.document ON smp.document.id = claimed.document_id
ORDER BY claimed.document_id;
