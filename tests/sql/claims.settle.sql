WITH held AS
(SELECT given.id AS id, given.seq AS seq, given.state AS state, given.steps AS steps, given.step_count AS step_count, given.lane AS lane, given.after AS after, given.give_back AS give_back, given.crashed AS crashed, given.reenters AS reenters, given.alone AS alone, given.deadline AS deadline, given.next_input_sha256 AS next_input_sha256, given.error AS error, given.tokens AS tokens, given.media_type AS media_type, given.text_sha256 AS text_sha256, given.text_chars AS text_chars, given.children AS children, given.stage AS stage, given.input_sha256 AS input_sha256, given.fingerprint AS fingerprint, given.output_sha256 AS output_sha256, given.kind AS kind, given.key_kind AS key_kind, given.key_sha256 AS key_sha256, given.reported AS reported, given.facts AS facts, given.failed_in AS failed_in, given.failed_stage AS failed_stage, given.code AS code, given.attempts AS attempts, given.crashes AS crashes, given.error_type AS error_type, given.traceback AS traceback, smp.document.version AS base, greatest(smp.work.tokens, given.tokens) AS spent
FROM json_to_recordset(CAST(%(given)s::VARCHAR AS JSON)) AS given(id UUID, seq BIGINT, state TEXT, steps JSON, step_count INTEGER, lane TEXT, after DOUBLE PRECISION, give_back INTEGER, crashed INTEGER, reenters BOOLEAN, alone BOOLEAN, deadline DOUBLE PRECISION, next_input_sha256 TEXT, error TEXT, tokens BIGINT, media_type TEXT, text_sha256 TEXT, text_chars INTEGER, children JSONB, stage TEXT, input_sha256 TEXT, fingerprint TEXT, output_sha256 TEXT, kind TEXT, key_kind TEXT, key_sha256 TEXT, reported JSONB, facts JSONB, failed_in TEXT, failed_stage TEXT, code TEXT, attempts INTEGER, crashes INTEGER, error_type TEXT, traceback TEXT)
JOIN smp.work ON smp.work.document_id = given.id AND smp.work.claim_seq = given.seq AND smp.work.lane = 'claimed'
JOIN smp.document ON smp.document.id = given.id
ORDER BY given.id
FOR NO KEY UPDATE OF work, document),
moved AS
(UPDATE smp.document
SET state=held.state, version=(held.base + held.step_count), media_type=coalesce(held.media_type, smp.document.media_type), input_sha256=coalesce(held.next_input_sha256, smp.document.input_sha256), text_sha256=coalesce(held.text_sha256, smp.document.text_sha256), text_chars=coalesce(held.text_chars, smp.document.text_chars), last_error=held.error, children=coalesce(held.children, smp.document.children), updated_at=clock_timestamp()
FROM held
WHERE smp.document.id = held.id
RETURNING smp.document.id, smp.document.life, smp.document.generation, smp.document.correlation_id, held.base, held.seq, held.steps, held.spent),
told AS
(INSERT INTO smp.transition (document_id, version, life, generation, worker, claim_seq, correlation_id, hop, tokens, trigger, from_state, to_state, attempt, error, reason, run_seconds)
SELECT moved.id AS id, moved.base + step."offset" AS anon_1, moved.life AS life, moved.generation AS generation, %(worker)s::BIGINT AS anon_2, moved.seq AS seq, moved.correlation_id AS correlation_id, coalesce(step.hop, false) AS coalesce_1, CASE WHEN (step."offset" = %(offset_1)s::INTEGER) THEN nullif(moved.spent, %(nullif_1)s::INTEGER) END AS anon_3, step.trigger AS trigger, step.from_state AS from_state, step.to_state AS to_state, step.attempt AS attempt, step.error AS error, step.reason AS reason, step.run_seconds AS run_seconds
FROM moved
JOIN json_to_recordset(moved.steps) AS step("offset" INTEGER, trigger TEXT, from_state TEXT, to_state TEXT, hop BOOLEAN, attempt SMALLINT, error TEXT, reason TEXT, run_seconds DOUBLE PRECISION) ON true),
rested AS
(DELETE FROM smp.work
WHERE smp.work.document_id = ANY (array((SELECT held.id
FROM held
WHERE held.lane IS NULL)))),
kept_products AS
(INSERT INTO smp.product (document_id, stage, input_sha256, fingerprint, output_sha256, kind, key_kind, key_sha256, reported, facts)
SELECT held.id AS id, held.stage AS stage, held.input_sha256 AS input_sha256, held.fingerprint AS fingerprint, held.output_sha256 AS output_sha256, held.kind AS kind, held.key_kind AS key_kind, held.key_sha256 AS key_sha256, coalesce(held.reported, '{}'::jsonb) AS coalesce_2, coalesce(held.facts, '{}'::jsonb) AS coalesce_3
FROM held
WHERE held.stage IS NOT NULL
ON CONFLICT (document_id, stage) DO UPDATE SET input_sha256 = excluded.input_sha256, fingerprint = excluded.fingerprint, output_sha256 = excluded.output_sha256, kind = excluded.kind, key_kind = excluded.key_kind, key_sha256 = excluded.key_sha256, reported = excluded.reported, facts = excluded.facts, at = clock_timestamp()),
parked AS
(INSERT INTO smp.dead_letter (document_id, stage, state, reason, code, attempts, crashes, error_type, traceback)
SELECT held.id AS id, held.failed_stage AS failed_stage, held.failed_in AS failed_in, held.error AS error, held.code AS code, held.attempts AS attempts, held.crashes AS crashes, held.error_type AS error_type, held.traceback AS traceback
FROM held
WHERE held.failed_in IS NOT NULL
ON CONFLICT (document_id) DO UPDATE SET stage = excluded.stage, state = excluded.state, code = excluded.code, reason = excluded.reason, attempts = excluded.attempts, crashes = excluded.crashes, error_type = excluded.error_type, traceback = excluded.traceback, at = clock_timestamp()),
kept AS
(UPDATE smp.work
SET state=held.state, lane=held.lane, run_at=(clock_timestamp() + coalesce(held.after, %(coalesce_4)s) * interval '1 second'), entered_at=CASE WHEN (smp.work.state != held.state OR coalesce(held.reenters, false)) THEN clock_timestamp() ELSE smp.work.entered_at END, claim_seq=nextval('smp.claim_seq'), attempt=CASE WHEN (smp.work.state != held.state OR coalesce(held.reenters, false)) THEN CASE WHEN (held.lane = %(lane_1)s::VARCHAR) THEN %(param_1)s::INTEGER ELSE %(param_2)s::INTEGER END ELSE smp.work.attempt - coalesce(held.give_back, %(coalesce_5)s::INTEGER) END, crashes=CASE WHEN (smp.work.state != held.state OR coalesce(held.reenters, false)) THEN %(param_3)s::INTEGER ELSE smp.work.crashes + coalesce(held.crashed, %(coalesce_6)s::INTEGER) END, alone=(NOT (smp.work.state != held.state OR coalesce(held.reenters, false)) AND (smp.work.alone OR coalesce(held.alone, false))), tokens=CASE WHEN (held.step_count = %(step_count_1)s::INTEGER) THEN held.spent ELSE %(param_4)s::INTEGER END, worker=CASE WHEN (held.lane = %(lane_1)s::VARCHAR) THEN %(worker)s::BIGINT END, deadline_at=CASE WHEN (held.lane = %(lane_1)s::VARCHAR) THEN clock_timestamp() + held.deadline * interval '1 second' END
FROM held
WHERE smp.work.document_id = held.id AND held.lane IS NOT NULL
RETURNING smp.work.document_id, smp.work.claim_seq, smp.work.deadline_at, smp.work.entered_at, smp.work.lane)
SELECT kept.document_id AS id, kept.claim_seq, kept.deadline_at, kept.entered_at, (SELECT pg_notify(%(pg_notify_2)s::VARCHAR, %(pg_notify_3)s::VARCHAR) AS pg_notify_1
FROM kept
WHERE kept.lane = %(lane_2)s::VARCHAR
LIMIT %(param_5)s::INTEGER) AS notified
FROM kept
UNION ALL
SELECT held.id, NULL AS anon_4, NULL AS anon__1, NULL AS anon__2, NULL AS anon__3
FROM held
WHERE held.lane IS NULL;
