SELECT smp.work.state, count(*) AS count, CAST(max(CAST(smp.work.document_id AS TEXT)) AS UUID) AS example
FROM smp.work
WHERE smp.work.crashes > %(crashes_1)s::SMALLINT
GROUP BY smp.work.state
ORDER BY smp.work.state;
