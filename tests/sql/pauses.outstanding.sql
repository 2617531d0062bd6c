SELECT count(*) AS count_1
FROM smp.work
WHERE smp.work.lane != 'held' AND smp.work.state = ANY (array((SELECT served.state
FROM json_to_recordset(CAST(%(served)s::VARCHAR AS JSON)) AS served(state TEXT, stage TEXT)))) AND (smp.work.lane = 'claimed' OR NOT (EXISTS (SELECT *
FROM smp.pause
WHERE smp.pause.until IS NULL AND (smp.pause.tenant IS NULL OR smp.pause.tenant = smp.work.tenant) AND (smp.pause.stage IS NULL OR (EXISTS (SELECT *
FROM json_to_recordset(CAST(%(served)s::VARCHAR AS JSON)) AS served(state TEXT, stage TEXT)
WHERE smp.work.state = served.state AND smp.pause.stage = served.stage))))));
