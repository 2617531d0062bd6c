WITH place AS MATERIALIZED
(SELECT served.state AS state, served.stage AS stage, (EXISTS (SELECT *
FROM smp.pause AS p
WHERE (p.until IS NULL OR p.until > statement_timestamp()) AND p.tenant IS NULL AND p.stage = served.stage)) OR (EXISTS (SELECT *
FROM smp.breaker
WHERE smp.breaker.provider = served.provider AND smp.breaker.state != 'closed')) OR (EXISTS (SELECT *
FROM smp.budget
WHERE smp.budget.provider = served.provider AND smp.budget.taken_until > statement_timestamp() + smp.budget.hold_seconds * interval '1 second')) OR (EXISTS (SELECT *
FROM smp.worker AS live
WHERE live.dead_at IS NULL AND ((EXISTS (SELECT *
FROM smp.breaker
WHERE smp.breaker.provider = (live.serves ->> served.stage) AND smp.breaker.state != 'closed')) OR (EXISTS (SELECT *
FROM smp.budget
WHERE smp.budget.provider = (live.serves ->> served.stage) AND smp.budget.taken_until > statement_timestamp() + smp.budget.hold_seconds * interval '1 second'))))) AS closed
FROM json_to_recordset(CAST(%(served)s::VARCHAR AS JSON)) AS served(state TEXT, stage TEXT, provider TEXT)),
counted AS
(SELECT smp.work.state AS state, smp.work.lane AS lane, smp.work.tenant AS tenant, count(*) AS documents, count(*) FILTER (WHERE smp.work.lane IN ('ready', 'deferred') AND smp.work.run_at <= statement_timestamp() OR smp.work.lane = 'claimed' AND NOT (EXISTS (SELECT *
FROM smp.worker AS holder
WHERE holder.id = smp.work.worker AND holder.dead_at IS NULL AND clock_timestamp() - holder.beat_at < holder.dead_after_seconds * interval '1 second'))) AS due, min(smp.work.run_at) FILTER (WHERE smp.work.lane IN ('ready', 'deferred') AND smp.work.run_at <= statement_timestamp() OR smp.work.lane = 'claimed' AND NOT (EXISTS (SELECT *
FROM smp.worker AS holder
WHERE holder.id = smp.work.worker AND holder.dead_at IS NULL AND clock_timestamp() - holder.beat_at < holder.dead_after_seconds * interval '1 second'))) AS due_at, count(*) FILTER (WHERE smp.work.lane = 'claimed' AND smp.work.deadline_at > statement_timestamp()) AS running, min(smp.work.entered_at) FILTER (WHERE smp.work.lane = 'claimed') AS entered_at
FROM smp.work
GROUP BY smp.work.state, smp.work.lane, smp.work.tenant),
seen AS
(SELECT counted.state AS state, counted.lane AS lane, counted.tenant AS tenant, counted.documents AS documents, counted.due AS due, counted.due_at AS due_at, counted.running AS running, counted.entered_at AS entered_at, EXISTS (SELECT *
FROM place
WHERE counted.state = place.state AND NOT place.closed AND NOT (EXISTS (SELECT *
FROM smp.pause AS p
WHERE (p.until IS NULL OR p.until > statement_timestamp()) AND p.tenant = counted.tenant AND (p.stage IS NULL OR p.stage = place.stage)))) AS open
FROM counted)
SELECT seen.state, seen.lane, CAST(coalesce(sum(seen.documents), %(coalesce_1)s::INTEGER) AS BIGINT) AS documents, CAST(coalesce(sum(seen.running), %(coalesce_2)s::INTEGER) AS BIGINT) AS running, CAST(coalesce(sum(seen.due) FILTER (WHERE seen.open), %(coalesce_3)s::INTEGER) AS BIGINT) AS due, min(seen.due_at) FILTER (WHERE seen.open) AS due_at, min(seen.entered_at) AS claimed_at, statement_timestamp() AS now
FROM seen
GROUP BY seen.state, seen.lane
ORDER BY seen.state, seen.lane;
