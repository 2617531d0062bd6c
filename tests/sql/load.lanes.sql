SELECT served.stage, count(*) FILTER (WHERE smp.work.lane = 'ready') AS ready, count(*) FILTER (WHERE smp.work.lane = 'deferred') AS deferred, count(*) FILTER (WHERE smp.work.lane = 'claimed') AS claimed, count(*) FILTER (WHERE smp.work.lane = 'ready' AND smp.work.alone) AS suspects, CAST(EXTRACT(epoch
FROM clock_timestamp() - (min(smp.work.run_at) FILTER (WHERE smp.work.lane = 'ready'))) AS DOUBLE PRECISION) AS ready_seconds
FROM smp.work
JOIN json_to_recordset(CAST(%(served)s::VARCHAR AS JSON)) AS served(state TEXT, stage TEXT) ON smp.work.state = served.state
GROUP BY served.stage
ORDER BY served.stage;
