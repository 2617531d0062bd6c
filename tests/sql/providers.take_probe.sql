WITH changed AS
(UPDATE smp.breaker
SET state=%(param_1)s::VARCHAR, probe_worker=%(me)s::BIGINT, probe_until=(clock_timestamp() + CAST(%(lease)s AS DOUBLE PRECISION) * interval '1 second'), at=clock_timestamp()
WHERE smp.breaker.provider = %(name)s::VARCHAR AND smp.breaker.state != 'closed' AND smp.breaker.until <= clock_timestamp() AND NOT (smp.breaker.state = 'half_open' AND smp.breaker.probe_until > clock_timestamp() AND (EXISTS (SELECT *
FROM smp.worker
WHERE smp.worker.id = smp.breaker.probe_worker AND smp.worker.dead_at IS NULL))) AND (EXISTS (SELECT *
FROM smp.worker
WHERE smp.worker.id = %(me)s::BIGINT AND smp.worker.dead_at IS NULL)) AND NOT (EXISTS (SELECT *
FROM smp.budget
WHERE smp.budget.provider = smp.breaker.provider AND smp.budget.taken_until > statement_timestamp() + smp.budget.hold_seconds * interval '1 second')) AND (EXISTS (SELECT *
FROM smp.work
WHERE smp.work.lane = 'ready' AND smp.work.alone = %(suspect)s AND smp.work.state = ANY (array((SELECT served.state
FROM json_to_recordset(CAST(%(served)s::VARCHAR AS JSON)) AS served(state TEXT, stage TEXT)))) AND (EXISTS (SELECT *
FROM json_to_recordset(CAST(%(served)s::VARCHAR AS JSON)) AS served(state TEXT, stage TEXT)
WHERE smp.work.state = served.state AND NOT (EXISTS (SELECT *
FROM smp.pause AS p
WHERE (p.until IS NULL OR p.until > statement_timestamp()) AND p.tenant IS NULL AND p.stage = served.stage)) AND NOT (EXISTS (SELECT *
FROM smp.pause AS p
WHERE (p.until IS NULL OR p.until > statement_timestamp()) AND p.tenant = smp.work.tenant AND (p.stage IS NULL OR p.stage = served.stage)))))))
RETURNING smp.breaker.provider, smp.breaker.state, smp.breaker.reason),
noted AS
(INSERT INTO smp.breaker_change (provider, state, reason, worker)
SELECT changed.provider AS provider, changed.state AS state, changed.reason AS reason, %(me)s::BIGINT AS anon_1
FROM changed),
pruned AS
(DELETE FROM smp.breaker_change
WHERE smp.breaker_change.id = ANY (array((SELECT smp.breaker_change.id
FROM smp.breaker_change
WHERE smp.breaker_change.provider = (SELECT changed.provider
FROM changed)
ORDER BY smp.breaker_change.id DESC
LIMIT ALL OFFSET %(param_2)s::INTEGER))))
SELECT changed.state, (SELECT pg_notify(%(pg_notify_2)s::VARCHAR, %(pg_notify_3)s::VARCHAR) AS pg_notify_1
FROM changed
WHERE changed.state = 'closed') AS notified
FROM changed;
