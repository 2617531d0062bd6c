SELECT smp.placement.stage, count(*) AS documents, min(smp.placement.withdraw_at) AS since, (array_agg(smp.placement.last_error
ORDER BY smp.placement.run_at DESC) FILTER (WHERE smp.placement.last_error IS NOT NULL))[%(param_1)s::INTEGER] AS last_error
FROM smp.placement
WHERE smp.placement.withdraw_at IS NOT NULL
GROUP BY smp.placement.stage
ORDER BY smp.placement.stage;
