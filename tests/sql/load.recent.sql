WITH newest AS
(SELECT smp.transition.from_state AS from_state, smp.transition.attempt AS attempt, smp.transition.run_seconds AS run_seconds, smp.transition.at AS at
FROM smp.transition
ORDER BY smp.transition.xact DESC
LIMIT %(limit)s::INTEGER),
everything AS
(SELECT count(*) AS count, min(newest.at) AS first_at
FROM newest)
SELECT served.stage, count(*) AS attempts, avg(newest.run_seconds) AS run_seconds, max(everything.count) AS rows, CAST(EXTRACT(epoch
FROM clock_timestamp() - max(everything.first_at)) AS DOUBLE PRECISION) AS covered
FROM newest
JOIN json_to_recordset(CAST(%(served)s::VARCHAR AS JSON)) AS served(state TEXT, stage TEXT) ON newest.from_state = served.state
JOIN everything ON true
WHERE newest.at >= clock_timestamp() - %(within)s * interval '1 second' AND newest.attempt IS NOT NULL
GROUP BY served.stage
ORDER BY served.stage;
