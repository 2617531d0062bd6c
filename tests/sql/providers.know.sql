INSERT INTO smp.breaker (provider)
VALUES (%(provider)s::VARCHAR)
ON CONFLICT (provider) DO NOTHING;

INSERT INTO smp.budget (provider, requests_limit, tokens_limit, per_seconds, hold_seconds)
VALUES (%(provider)s::VARCHAR, CAST(%(requests_limit)s AS DOUBLE PRECISION), CAST(%(tokens_limit)s AS DOUBLE PRECISION), CAST(%(per_seconds)s AS DOUBLE PRECISION), CAST(%(hold_seconds)s AS DOUBLE PRECISION))
ON CONFLICT (provider) DO UPDATE SET requests_limit = excluded.requests_limit, tokens_limit = excluded.tokens_limit, per_seconds = excluded.per_seconds, hold_seconds = excluded.hold_seconds
WHERE smp.budget.requests_limit IS DISTINCT
FROM excluded.requests_limit OR smp.budget.tokens_limit IS DISTINCT
FROM excluded.tokens_limit OR smp.budget.per_seconds IS DISTINCT
FROM excluded.per_seconds OR smp.budget.hold_seconds IS DISTINCT
FROM excluded.hold_seconds;
