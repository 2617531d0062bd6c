SELECT smp.pause.stage
FROM smp.pause
WHERE smp.pause.until > statement_timestamp()
ORDER BY smp.pause.stage;
