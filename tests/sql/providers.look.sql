SELECT smp.breaker.provider, smp.breaker.state, smp.breaker.reason, coalesce(CAST(EXTRACT(epoch
FROM smp.breaker.until - statement_timestamp()) AS DOUBLE PRECISION), %(coalesce_1)s) AS opens_in, smp.breaker.state != 'closed' AND smp.breaker.until <= statement_timestamp() AND NOT (smp.breaker.state = 'half_open' AND smp.breaker.probe_until > statement_timestamp() AND (EXISTS (SELECT *
FROM smp.worker
WHERE smp.worker.id = smp.breaker.probe_worker AND smp.worker.dead_at IS NULL))) AND NOT coalesce(smp.budget.taken_until > statement_timestamp() + smp.budget.hold_seconds * interval '1 second', false) AS is_due, smp.breaker.probe_worker, least(smp.budget.requests_limit, smp.budget.requests_told) AS requests, least(smp.budget.tokens_limit, smp.budget.tokens_told) AS tokens, greatest(CAST(EXTRACT(epoch
FROM smp.budget.taken_until - statement_timestamp()) AS DOUBLE PRECISION), %(greatest_1)s) AS ahead, coalesce(smp.budget.taken_until > statement_timestamp() + smp.budget.hold_seconds * interval '1 second', false) AS is_used_up
FROM smp.breaker
JOIN smp.budget ON smp.budget.provider = smp.breaker.provider
WHERE smp.breaker.provider = ANY (%(names)s::TEXT[])
ORDER BY smp.breaker.provider;
