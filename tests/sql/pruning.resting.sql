SELECT smp.document.id
FROM smp.document
JOIN smp.transition ON smp.transition.document_id = smp.document.id AND smp.transition.version = smp.document.version
WHERE smp.document.state = ANY (%(states)s::TEXT[]) AND smp.transition.at <= clock_timestamp() - %(older_than)s * interval '1 second' AND (%(tenant)s::VARCHAR IS NULL OR smp.document.tenant = %(tenant)s::VARCHAR)
ORDER BY smp.document.depth DESC, smp.document.id;
