WITH changed AS
(UPDATE smp.breaker
SET state=%(param_1)s::VARCHAR, reason=%(why)s::VARCHAR, opened_at=coalesce(smp.breaker.opened_at, clock_timestamp()), until=(clock_timestamp() + CAST(%(open_seconds)s AS DOUBLE PRECISION) * interval '1 second'), probe_worker=NULL, probe_until=NULL, at=clock_timestamp()
WHERE smp.breaker.provider = %(name)s::VARCHAR AND (smp.breaker.state = 'closed' OR smp.breaker.probe_worker = %(me)s::BIGINT)
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
