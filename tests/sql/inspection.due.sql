SELECT smp.work.state, count(*) AS count, min(smp.work.run_at) AS since
FROM smp.work
WHERE smp.work.lane IN ('ready', 'deferred') AND smp.work.run_at <= clock_timestamp() AND NOT (EXISTS (SELECT *
FROM smp.pause
WHERE smp.pause.tenant = smp.work.tenant AND smp.pause.stage IS NULL AND (smp.pause.until IS NULL OR smp.pause.until > clock_timestamp())))
GROUP BY smp.work.state
ORDER BY smp.work.state;
