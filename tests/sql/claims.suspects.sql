SELECT EXISTS (SELECT *
FROM smp.work
JOIN json_to_recordset(CAST(%(served)s::VARCHAR AS JSON)) AS served(state TEXT, stage TEXT) ON smp.work.state = served.state
WHERE smp.work.lane = 'ready' AND smp.work.alone AND NOT ((EXISTS (SELECT *
FROM smp.pause AS p
WHERE (p.until IS NULL OR p.until > statement_timestamp()) AND p.tenant IS NULL AND p.stage = served.stage)) OR (EXISTS (SELECT *
FROM smp.pause AS p
WHERE (p.until IS NULL OR p.until > statement_timestamp()) AND p.tenant = smp.work.tenant AND (p.stage IS NULL OR p.stage = served.stage))))) AS anon_1;
