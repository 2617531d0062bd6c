WITH held AS
(SELECT given.id AS id, given.seq AS seq, given.state AS state, given.steps AS steps, given.lane AS lane, given.after AS after, given.give_back AS give_back, given.crashed AS crashed, given.deadline AS deadline, given.input_sha256 AS input_sha256, given.error AS error, given.media_type AS media_type, given.text_sha256 AS text_sha256, given.text_chars AS text_chars, smp.document.version AS base
FROM json_to_recordset(CAST(%(given)s::VARCHAR AS JSON)) AS given(id UUID, seq BIGINT, state TEXT, steps INTEGER, lane TEXT, after DOUBLE PRECISION, give_back INTEGER, crashed INTEGER, deadline DOUBLE PRECISION, input_sha256 TEXT, error TEXT, media_type TEXT, text_sha256 TEXT, text_chars INTEGER)
JOIN smp.work ON smp.work.document_id = given.id AND smp.work.claim_seq = given.seq AND smp.work.lane = 'claimed'
JOIN smp.document ON smp.document.id = given.id
ORDER BY given.id
FOR NO KEY UPDATE OF work, document),
moved AS
(UPDATE smp.document
SET state=held.state, version=(held.base + held.steps), media_type=coalesce(held.media_type, smp.document.media_type), input_sha256=coalesce(held.input_sha256, smp.document.input_sha256), text_sha256=coalesce(held.text_sha256, smp.document.text_sha256), text_chars=coalesce(held.text_chars, smp.document.text_chars), last_error=held.error, updated_at=clock_timestamp()
FROM held
WHERE smp.document.id = held.id
RETURNING smp.document.id, smp.document.life, smp.document.generation, smp.document.correlation_id),
told AS
(INSERT INTO smp.transition (document_id, trigger, from_state, to_state, hop, attempt, error, reason, run_seconds, version, life, generation, worker, claim_seq, correlation_id)
SELECT step.id AS id, step.trigger AS trigger, step.from_state AS from_state, step.to_state AS to_state, step.hop AS hop, step.attempt AS attempt, step.error AS error, step.reason AS reason, step.run_seconds AS run_seconds, held.base + step."offset" AS anon_1, moved.life AS life, moved.generation AS generation, %(worker)s::BIGINT AS anon_2, held.seq AS seq, moved.correlation_id AS correlation_id
FROM json_to_recordset(CAST(%(step)s::VARCHAR AS JSON)) AS step(id UUID, "offset" INTEGER, trigger TEXT, from_state TEXT, to_state TEXT, hop BOOLEAN, attempt INTEGER, error TEXT, reason TEXT, run_seconds DOUBLE PRECISION)
JOIN held ON held.id = step.id
JOIN moved ON moved.id = step.id),
rested AS
(DELETE FROM smp.work
WHERE smp.work.document_id = ANY (array((SELECT held.id
FROM held
WHERE held.lane IS NULL)))),
kept_products AS
(INSERT INTO smp.product (document_id, stage, input_sha256, fingerprint, output_sha256, kind, key_kind, key_sha256, reported, facts)
SELECT earned.id AS id, earned.stage AS stage, earned.input_sha256 AS input_sha256, earned.fingerprint AS fingerprint, earned.output_sha256 AS output_sha256, earned.kind AS kind, earned.key_kind AS key_kind, earned.key_sha256 AS key_sha256, earned.reported AS reported, earned.facts AS facts
FROM json_to_recordset(CAST(%(earned)s::VARCHAR AS JSON)) AS earned(id UUID, stage TEXT, input_sha256 TEXT, fingerprint TEXT, output_sha256 TEXT, kind TEXT, key_kind TEXT, key_sha256 TEXT, reported JSONB, facts JSONB)
JOIN held ON held.id = earned.id
ON CONFLICT (document_id, stage) DO UPDATE SET input_sha256 = excluded.input_sha256, fingerprint = excluded.fingerprint, output_sha256 = excluded.output_sha256, kind = excluded.kind, key_kind = excluded.key_kind, key_sha256 = excluded.key_sha256, reported = excluded.reported, facts = excluded.facts, at = clock_timestamp()),
parked AS
(INSERT INTO smp.dead_letter (document_id, state, code, reason, attempts)
SELECT step.id AS id, step.from_state AS from_state, step.error AS error, held.error AS error_1, coalesce(step.attempt, %(coalesce_2)s::INTEGER) AS coalesce_1
FROM json_to_recordset(CAST(%(step)s::VARCHAR AS JSON)) AS step(id UUID, "offset" INTEGER, trigger TEXT, from_state TEXT, to_state TEXT, hop BOOLEAN, attempt INTEGER, error TEXT, reason TEXT, run_seconds DOUBLE PRECISION)
JOIN held ON held.id = step.id
WHERE step.trigger = %(trigger_1)s::VARCHAR
ON CONFLICT (document_id) DO UPDATE SET state = excluded.state, code = excluded.code, reason = excluded.reason, attempts = excluded.attempts, at = clock_timestamp()),
kept AS
(UPDATE smp.work
SET state=held.state, lane=held.lane, run_at=(clock_timestamp() + held.after * interval '1 second'), entered_at=CASE WHEN (smp.work.state != held.state) THEN clock_timestamp() ELSE smp.work.entered_at END, claim_seq=nextval('smp.claim_seq'), attempt=CASE WHEN (smp.work.state != held.state) THEN CASE WHEN (held.lane = %(lane_1)s::VARCHAR) THEN %(param_1)s::INTEGER ELSE %(param_2)s::INTEGER END ELSE smp.work.attempt - held.give_back END, crashes=(smp.work.crashes + held.crashed), worker=CASE WHEN (held.lane = %(lane_1)s::VARCHAR) THEN %(worker)s::BIGINT END, deadline_at=CASE WHEN (held.lane = %(lane_1)s::VARCHAR) THEN clock_timestamp() + held.deadline * interval '1 second' END
FROM held
WHERE smp.work.document_id = held.id AND held.lane IS NOT NULL
RETURNING smp.work.document_id, smp.work.claim_seq, smp.work.deadline_at, smp.work.entered_at, smp.work.lane)
SELECT held.id, kept.claim_seq, kept.deadline_at, kept.entered_at, kept.entered_at AS entered_at__1, (SELECT pg_notify(%(pg_notify_2)s::VARCHAR, %(pg_notify_3)s::VARCHAR) AS pg_notify_1
FROM kept
WHERE kept.lane = %(lane_2)s::VARCHAR
LIMIT %(param_3)s::INTEGER) AS notified
FROM held
LEFT OUTER JOIN kept ON kept.document_id = held.id;
