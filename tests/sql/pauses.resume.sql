WITH ended AS
(DELETE FROM smp.pause
WHERE smp.pause.stage IS NOT DISTINCT
FROM %(stage)s::VARCHAR AND smp.pause.tenant IS NOT DISTINCT
FROM %(tenant)s::VARCHAR
RETURNING smp.pause.id, smp.pause.stage, smp.pause.tenant, smp.pause.fault, smp.pause.reason, smp.pause.by, smp.pause.until, smp.pause.at)
SELECT ended.tenant, ended.stage, ended.fault, ended.reason, ended.by, ended.until, ended.at, (SELECT pg_notify(%(pg_notify_2)s::VARCHAR, %(pg_notify_3)s::VARCHAR) AS pg_notify_1
FROM ended
LIMIT %(param_1)s::INTEGER) AS notified
FROM ended
WHERE ended.until IS NULL OR ended.until > statement_timestamp()
ORDER BY ended.id;
