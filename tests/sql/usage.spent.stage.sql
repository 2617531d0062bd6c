SELECT coalesce(served.stage, smp.transition.trigger) AS key, CAST(sum(smp.transition.tokens) AS BIGINT) AS tokens, sum(smp.transition.tokens * priced.price) / CAST(%(sum_1)s::INTEGER AS NUMERIC) AS cost
FROM smp.transition
JOIN smp.document ON smp.document.id = smp.transition.document_id
LEFT OUTER JOIN json_to_recordset(CAST(%(served)s::VARCHAR AS JSON)) AS served(state TEXT, stage TEXT) ON smp.transition.from_state = served.state
LEFT OUTER JOIN json_to_recordset(CAST(%(priced)s::VARCHAR AS JSON)) AS priced(stage TEXT, price DOUBLE PRECISION) ON priced.stage = coalesce(served.stage, smp.transition.trigger)
WHERE smp.transition.tokens IS NOT NULL AND (%(since)s::TIMESTAMP WITH TIME ZONE IS NULL OR smp.transition.at >= %(since)s::TIMESTAMP WITH TIME ZONE) AND (%(tenant)s::VARCHAR IS NULL OR smp.document.tenant = %(tenant)s::VARCHAR)
GROUP BY coalesce(served.stage, smp.transition.trigger)
ORDER BY tokens DESC, key
LIMIT %(limit)s::INTEGER;
