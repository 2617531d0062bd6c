SELECT smp.document.id
FROM smp.document
WHERE smp.document.state = ANY (%(states)s::TEXT[]) AND smp.document.id > %(after)s::UUID
ORDER BY smp.document.id
LIMIT %(limit)s::INTEGER;
