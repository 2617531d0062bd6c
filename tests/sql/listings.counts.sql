SELECT smp.document.state, count(*) AS count
FROM smp.document
WHERE %(tenant)s::VARCHAR IS NULL OR smp.document.tenant = %(tenant)s::VARCHAR
GROUP BY smp.document.state
ORDER BY smp.document.state;
