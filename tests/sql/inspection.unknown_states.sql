SELECT smp.document.state, count(*) AS count
FROM smp.document
WHERE smp.document.state = ANY (%(states)s::TEXT[])
GROUP BY smp.document.state
ORDER BY smp.document.state;
