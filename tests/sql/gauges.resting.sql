SELECT smp.document.state, count(*) AS documents
FROM smp.document
WHERE smp.document.state = ANY (%(states)s::TEXT[])
GROUP BY smp.document.state
ORDER BY smp.document.state;
