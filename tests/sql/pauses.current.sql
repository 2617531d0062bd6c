SELECT smp.pause.tenant, smp.pause.stage, smp.pause.fault, smp.pause.reason, smp.pause.by, smp.pause.until, smp.pause.at
FROM smp.pause
WHERE smp.pause.until IS NULL OR smp.pause.until > statement_timestamp()
ORDER BY smp.pause.at, smp.pause.id;
