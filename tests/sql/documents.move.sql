WITH moved AS
(UPDATE smp.document
SET state=given.state, version=(given.base + given.steps), life=(smp.document.life + given.lives), input_sha256=CASE WHEN (given.lives > %(lives_1)s::INTEGER) THEN smp.document.content_sha256 ELSE smp.document.input_sha256 END, last_error=given.error, updated_at=clock_timestamp()
FROM json_to_recordset(CAST(%(given)s::VARCHAR AS JSON)) AS given(id UUID, base INTEGER, steps INTEGER, state TEXT, lane TEXT, lives INTEGER, error TEXT)
WHERE smp.document.id = given.id AND smp.document.version = given.base
RETURNING smp.document.id, smp.document.tenant, smp.document.life, smp.document.generation, smp.document.correlation_id, given.base, given.lives, given.state, given.lane),
told AS
(INSERT INTO smp.transition (document_id, version, life, generation, trigger, from_state, to_state, hop, tokens, by, reason, correlation_id)
SELECT step.id AS id, moved.base + step."offset" AS anon_1, (moved.life - moved.lives) + step.restarts AS anon_2, moved.generation AS generation, step.trigger AS trigger, step.from_state AS from_state, step.to_state AS to_state, step.hop AS hop, CASE WHEN (step."offset" = %(offset_1)s::INTEGER) THEN nullif(smp.work.tokens, %(nullif_1)s::INTEGER) END AS anon_3, step.by AS by, step.reason AS reason, moved.correlation_id AS correlation_id
FROM json_to_recordset(CAST(%(step)s::VARCHAR AS JSON)) AS step(id UUID, "offset" INTEGER, trigger TEXT, from_state TEXT, to_state TEXT, restarts INTEGER, hop BOOLEAN, by TEXT, reason TEXT)
JOIN moved ON moved.id = step.id
LEFT OUTER JOIN smp.work ON smp.work.document_id = moved.id),
queued AS
(INSERT INTO smp.work (document_id, tenant, state, lane)
SELECT moved.id AS id, moved.tenant AS tenant, moved.state AS state, moved.lane AS lane
FROM moved
WHERE moved.lane IS NOT NULL
ON CONFLICT (document_id) DO UPDATE SET state = excluded.state, lane = excluded.lane, run_at = clock_timestamp(), entered_at = clock_timestamp(), claim_seq = nextval('smp.claim_seq'), attempt = %(param_1)s::SMALLINT, crashes = %(param_2)s::SMALLINT, alone = %(param_3)s, tokens = %(param_4)s::BIGINT, worker = %(param_5)s::BIGINT, deadline_at = %(param_6)s::TIMESTAMP WITH TIME ZONE),
rested AS
(DELETE FROM smp.work
WHERE smp.work.document_id = ANY (array((SELECT moved.id
FROM moved
WHERE moved.lane IS NULL)))),
risen AS
(DELETE FROM smp.dead_letter
WHERE smp.dead_letter.document_id = ANY (array((SELECT moved.id
FROM moved)))),
alone AS
(DELETE FROM smp.duplicate_of
WHERE smp.duplicate_of.document_id = ANY (array((SELECT moved.id
FROM moved))))
SELECT moved.id, (SELECT pg_notify(%(pg_notify_2)s::VARCHAR, %(pg_notify_3)s::VARCHAR) AS pg_notify_1
FROM moved
WHERE moved.lane = %(lane_1)s::VARCHAR
LIMIT %(param_7)s::INTEGER) AS notified
FROM moved
ORDER BY moved.id;
