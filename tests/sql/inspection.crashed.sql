SELECT smp.dead_letter.stage, smp.dead_letter.code, count(*) AS count, CAST(max(CAST(smp.dead_letter.document_id AS TEXT)) AS UUID) AS example
FROM smp.dead_letter
WHERE smp.dead_letter.at >= %(since)s::TIMESTAMP WITH TIME ZONE AND smp.dead_letter.crashes > %(crashes_1)s::INTEGER
GROUP BY smp.dead_letter.stage, smp.dead_letter.code
ORDER BY count DESC, smp.dead_letter.stage, smp.dead_letter.code;
