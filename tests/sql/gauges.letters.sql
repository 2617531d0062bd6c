SELECT smp.dead_letter.stage, smp.dead_letter.code, count(*) AS documents
FROM smp.dead_letter
GROUP BY smp.dead_letter.stage, smp.dead_letter.code
ORDER BY count(*) DESC, smp.dead_letter.stage, smp.dead_letter.code
LIMIT %(param_1)s::INTEGER;
