WITH seen AS MATERIALIZED
(SELECT smp.budget.provider AS provider, smp.budget.requests_limit AS requests_limit, smp.budget.requests_told AS requests_told, smp.budget.requests_level AS requests_level, smp.budget.tokens_limit AS tokens_limit, smp.budget.tokens_told AS tokens_told, smp.budget.tokens_level AS tokens_level, smp.budget.per_seconds AS per_seconds, smp.budget.hold_seconds AS hold_seconds, smp.budget.levels_at AS levels_at, smp.budget.blocked_until AS blocked_until, smp.budget.taken_until AS taken_until, clock_timestamp() AS now
FROM smp.budget
WHERE smp.budget.provider = %(name)s::VARCHAR
ORDER BY smp.budget.provider
FOR NO KEY UPDATE),
known AS
(SELECT seen.provider AS provider, seen.now AS now, seen.per_seconds AS per_seconds, seen.hold_seconds AS hold_seconds, seen.requests_level AS requests_level, seen.tokens_level AS tokens_level, coalesce(CAST(%(told_requests)s AS DOUBLE PRECISION), seen.requests_told) AS requests_told, coalesce(CAST(%(told_tokens)s AS DOUBLE PRECISION), seen.tokens_told) AS tokens_told, least(seen.requests_limit, coalesce(CAST(%(told_requests)s AS DOUBLE PRECISION), seen.requests_told)) AS requests_limit, least(seen.tokens_limit, coalesce(CAST(%(told_tokens)s AS DOUBLE PRECISION), seen.tokens_told)) AS tokens_limit, greatest(CAST(EXTRACT(epoch
FROM seen.now - seen.levels_at) AS DOUBLE PRECISION), %(greatest_6)s) AS elapsed, greatest(seen.blocked_until, seen.now + CAST(%(blocked)s AS DOUBLE PRECISION) * interval '1 second') AS blocked_until
FROM seen),
levels AS
(SELECT known.provider AS provider, known.now AS now, known.per_seconds AS per_seconds, known.hold_seconds AS hold_seconds, known.requests_level AS requests_level, known.tokens_level AS tokens_level, known.requests_told AS requests_told, known.tokens_told AS tokens_told, known.requests_limit AS requests_limit, known.tokens_limit AS tokens_limit, known.elapsed AS elapsed, known.blocked_until AS blocked_until, CASE WHEN (known.requests_limit IS NOT NULL) THEN least(least(known.requests_limit * %(requests_limit_1)s, coalesce(known.requests_level, known.requests_limit * %(requests_limit_1)s) + (known.requests_limit / CAST(known.per_seconds AS DOUBLE PRECISION)) * known.elapsed + CAST(%(back_requests)s AS DOUBLE PRECISION)), CAST(%(left_requests)s AS DOUBLE PRECISION), ((-CAST(%(blocked)s AS DOUBLE PRECISION)) * known.requests_limit) / CAST(known.per_seconds AS DOUBLE PRECISION)) END AS requests_now, CASE WHEN (known.tokens_limit IS NOT NULL) THEN least(least(known.tokens_limit * %(tokens_limit_1)s, coalesce(known.tokens_level, known.tokens_limit * %(tokens_limit_1)s) + (known.tokens_limit / CAST(known.per_seconds AS DOUBLE PRECISION)) * known.elapsed + CAST(%(back_tokens)s AS DOUBLE PRECISION)), CAST(%(left_tokens)s AS DOUBLE PRECISION), ((-CAST(%(blocked)s AS DOUBLE PRECISION)) * known.tokens_limit) / CAST(known.per_seconds AS DOUBLE PRECISION)) END AS tokens_now
FROM known),
queue AS
(SELECT ask.place AS place, greatest(%(greatest_4)s, CAST(EXTRACT(epoch
FROM levels.blocked_until - levels.now) AS DOUBLE PRECISION), ((ask.place - levels.requests_now) * levels.per_seconds) / CAST(levels.requests_limit AS DOUBLE PRECISION), ((sum(ask.tokens) OVER (ORDER BY ask.place) - levels.tokens_now) * levels.per_seconds) / CAST(levels.tokens_limit AS DOUBLE PRECISION)) AS wait, greatest(%(greatest_5)s, CAST(EXTRACT(epoch
FROM levels.blocked_until - levels.now) AS DOUBLE PRECISION), (((ask.place - %(place_1)s::INTEGER) - levels.requests_now) * levels.per_seconds) / CAST(levels.requests_limit AS DOUBLE PRECISION), (((sum(ask.tokens) OVER (ORDER BY ask.place) - ask.tokens) - levels.tokens_now) * levels.per_seconds) / CAST(levels.tokens_limit AS DOUBLE PRECISION)) AS ahead, sum(ask.tokens) OVER (ORDER BY ask.place) AS through
FROM unnest(%(asks)s::DOUBLE PRECISION[]) WITH ORDINALITY AS ask(tokens, place)
JOIN levels ON true),
left_over AS
(SELECT levels.provider AS provider, levels.now AS now, levels.per_seconds AS per_seconds, levels.hold_seconds AS hold_seconds, levels.requests_level AS requests_level, levels.tokens_level AS tokens_level, levels.requests_told AS requests_told, levels.tokens_told AS tokens_told, levels.requests_limit AS requests_limit, levels.tokens_limit AS tokens_limit, levels.elapsed AS elapsed, levels.blocked_until AS blocked_until, levels.requests_now AS requests_now, levels.tokens_now AS tokens_now, levels.requests_now - (SELECT count(*) AS count_1
FROM queue
WHERE levels.hold_seconds >= queue.ahead) AS requests_after, levels.tokens_now - (SELECT coalesce(max(queue.through), %(coalesce_2)s) AS coalesce_1
FROM queue
WHERE levels.hold_seconds >= queue.ahead) AS tokens_after
FROM levels),
sums AS
(SELECT left_over.provider AS provider, left_over.now AS now, left_over.per_seconds AS per_seconds, left_over.hold_seconds AS hold_seconds, left_over.requests_level AS requests_level, left_over.tokens_level AS tokens_level, left_over.requests_told AS requests_told, left_over.tokens_told AS tokens_told, left_over.requests_limit AS requests_limit, left_over.tokens_limit AS tokens_limit, left_over.elapsed AS elapsed, left_over.blocked_until AS blocked_until, left_over.requests_now AS requests_now, left_over.tokens_now AS tokens_now, left_over.requests_after AS requests_after, left_over.tokens_after AS tokens_after, greatest(%(greatest_2)s, least(CAST(%(more_requests)s AS DOUBLE PRECISION), left_over.requests_after)) AS more_requests, greatest(%(greatest_3)s, least(CAST(%(more_tokens)s AS DOUBLE PRECISION), left_over.tokens_after)) AS more_tokens
FROM left_over),
changed AS
(UPDATE smp.budget
SET requests_told=sums.requests_told, requests_level=(sums.requests_after - sums.more_requests), tokens_told=sums.tokens_told, tokens_level=(sums.tokens_after - sums.more_tokens), levels_at=greatest(smp.budget.levels_at, sums.now), blocked_until=sums.blocked_until, taken_until=(sums.now + greatest(%(greatest_1)s, CAST(EXTRACT(epoch
FROM sums.blocked_until - sums.now) AS DOUBLE PRECISION), ((-sums.requests_after) * sums.per_seconds) / CAST(sums.requests_limit AS DOUBLE PRECISION), ((-sums.tokens_after) * sums.per_seconds) / CAST(sums.tokens_limit AS DOUBLE PRECISION)) * interval '1 second')
FROM sums
WHERE smp.budget.provider = sums.provider)
SELECT queue.place, queue.wait, queue.ahead, coalesce(sums.hold_seconds >= queue.ahead, false) AS is_taken, sums.more_requests, sums.more_tokens, sums.requests_limit AS requests, sums.tokens_limit AS tokens
FROM sums
LEFT OUTER JOIN queue ON true
ORDER BY queue.place;
