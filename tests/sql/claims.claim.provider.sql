WITH place AS
(SELECT %(param_2)s::VARCHAR AS stage, %(states_1)s::TEXT[] AS states, %(free_1)s::INTEGER AS free, %(deadline_1)s AS deadline, %(after_1)s::VARCHAR AS after, %(param_3)s::VARCHAR AS provider
UNION ALL
SELECT %(param_4)s::VARCHAR AS stage, %(states_0)s::TEXT[] AS states, %(free_0)s::INTEGER AS free, %(deadline_0)s AS deadline, %(after_0)s::VARCHAR AS after, %(param_5)s::VARCHAR AS provider),
picked AS MATERIALIZED
(SELECT leg.document_id AS document_id
FROM place
JOIN LATERAL (SELECT found.document_id AS document_id
FROM unnest(place.states) AS at(state)
JOIN LATERAL (WITH RECURSIVE turn(tenant, lap, number, closed) AS
(SELECT place.after COLLATE "C" AS tenant, 0 AS lap, 0 AS number, true AS closed
UNION ALL
SELECT following.tenant AS tenant, following.lap AS lap, turn.number + CASE WHEN closed.it THEN 0 ELSE 1 END AS anon_1, closed.it AS it
FROM turn
JOIN LATERAL ((SELECT w.tenant AS tenant, turn.lap AS lap
FROM smp.work AS w
WHERE w.lane = 'ready' AND w.state = at.state AND NOT w.alone AND w.tenant > turn.tenant
ORDER BY w.tenant
LIMIT 1)
UNION ALL (SELECT w.tenant AS tenant, 1
FROM smp.work AS w
WHERE turn.lap = 0 AND w.lane = 'ready' AND w.state = at.state AND NOT w.alone
ORDER BY w.tenant
LIMIT 1)
LIMIT 1) AS following ON true
JOIN LATERAL (SELECT EXISTS (SELECT *
FROM smp.pause AS p
WHERE (p.until IS NULL OR p.until > statement_timestamp()) AND p.tenant = following.tenant AND (p.stage IS NULL OR p.stage = place.stage)) AS it) AS closed ON true
WHERE turn.number < 32 AND (following.lap = 0 OR following.tenant <= place.after)),
first AS MATERIALIZED
(SELECT one.document_id AS document_id
FROM turn
JOIN LATERAL (SELECT w.document_id AS document_id
FROM smp.work AS w
WHERE w.lane = 'ready' AND w.state = at.state AND NOT w.alone AND w.tenant = turn.tenant
ORDER BY w.priority, w.run_at, w.document_id
LIMIT CASE WHEN (place.free > 1) THEN greatest(1, place.free / (SELECT count(*) AS count_1
FROM turn
WHERE NOT turn.closed)) ELSE 1 END
FOR NO KEY UPDATE SKIP LOCKED) AS one ON true
WHERE NOT turn.closed
LIMIT place.free)
SELECT first.document_id AS document_id
FROM first
UNION ALL (SELECT more.document_id AS document_id
FROM turn
JOIN LATERAL (SELECT w.document_id AS document_id
FROM smp.work AS w
WHERE w.lane = 'ready' AND w.state = at.state AND NOT w.alone AND w.tenant = turn.tenant AND w.document_id != ALL (array((SELECT first.document_id
FROM first)))
ORDER BY w.priority, w.run_at, w.document_id
LIMIT place.free
FOR NO KEY UPDATE SKIP LOCKED) AS more ON true
WHERE NOT turn.closed
LIMIT CASE WHEN ((SELECT count(*) AS count_1
FROM turn
WHERE NOT turn.closed) > 1) THEN place.free - (SELECT count(*) AS count_2
FROM first) ELSE 0 END)) AS found ON true
LIMIT place.free) AS leg ON true
WHERE place.free > 0 AND NOT (SELECT (EXISTS (SELECT *
FROM smp.pause AS p
WHERE (p.until IS NULL OR p.until > statement_timestamp()) AND p.tenant IS NULL AND p.stage = place.stage)) OR (EXISTS (SELECT *
FROM smp.breaker
WHERE smp.breaker.provider = place.provider AND smp.breaker.state != 'closed')) OR (EXISTS (SELECT *
FROM smp.budget
WHERE smp.budget.provider = place.provider AND smp.budget.taken_until > statement_timestamp() + smp.budget.hold_seconds * interval '1 second')) AS anon_2)
LIMIT %(documents)s::INTEGER),
claimed AS
(UPDATE smp.work
SET lane=%(param_1)s::VARCHAR, claim_seq=nextval('smp.claim_seq'), attempt=(smp.work.attempt + %(attempt_1)s::SMALLINT), worker=%(worker)s::BIGINT, deadline_at=(clock_timestamp() + (SELECT max(place.deadline) AS max_1
FROM place
WHERE smp.work.state = ANY (place.states)) * interval '1 second')
WHERE smp.work.document_id = ANY (array((SELECT picked.document_id
FROM picked))) AND smp.work.lane = 'ready' AND (EXISTS (SELECT *
FROM smp.worker
WHERE smp.worker.id = %(worker)s::BIGINT AND smp.worker.dead_at IS NULL))
RETURNING smp.work.document_id, smp.work.claim_seq, smp.work.attempt, smp.work.crashes, smp.work.worker, smp.work.run_at, smp.work.deadline_at, smp.work.entered_at, smp.work.tokens)
SELECT claimed.document_id, claimed.claim_seq, claimed.attempt, claimed.crashes, claimed.worker, claimed.run_at, claimed.deadline_at, claimed.entered_at, claimed.tokens, smp.document.id, smp.document.tenant, smp.document.source_uri, smp.document.name, smp.document.state, smp.document.version, smp.document.life, smp.document.generation, smp.document.media_type, smp.document.size_bytes, smp.document.content_sha256, smp.document.input_sha256, smp.document.text_sha256, smp.document.published_sha256, smp.document.text_chars, smp.document.chunk_count, smp.document.vector_count, smp.document.correlation_id, smp.document.traceparent, smp.document.last_error, smp.document.metadata, smp.document.parent_id, smp.document.depth, smp.document.children, smp.document.created_at, smp.document.updated_at
FROM claimed
JOIN smp.document ON smp.document.id = claimed.document_id
ORDER BY claimed.document_id;
