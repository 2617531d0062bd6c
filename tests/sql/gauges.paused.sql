SELECT coalesce(smp.pause.stage, '') AS stage, smp.pause.fault, count(*) AS pauses
FROM smp.pause
WHERE smp.pause.until IS NULL OR smp.pause.until > statement_timestamp()
GROUP BY coalesce(smp.pause.stage, ''), smp.pause.fault
ORDER BY coalesce(smp.pause.stage, ''), smp.pause.fault;
