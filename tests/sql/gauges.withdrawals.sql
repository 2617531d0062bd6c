SELECT smp.placement.stage, count(*) AS documents
FROM smp.placement
WHERE smp.placement.withdraw_at IS NOT NULL
GROUP BY smp.placement.stage
ORDER BY smp.placement.stage;
