SELECT smp.document.id
FROM smp.document
WHERE smp.document.state = %(state)s::VARCHAR AND (%(tenant)s::VARCHAR IS NULL OR smp.document.tenant = %(tenant)s::VARCHAR)
ORDER BY smp.document.id;
