SELECT smp.document.id, smp.document.depth
FROM smp.document
JOIN smp.dead_letter ON smp.dead_letter.document_id = smp.document.id
WHERE (%(stage)s::VARCHAR IS NULL OR smp.dead_letter.stage = %(stage)s::VARCHAR) AND (%(code)s::VARCHAR IS NULL OR smp.dead_letter.code = %(code)s::VARCHAR) AND (%(tenant)s::VARCHAR IS NULL OR smp.document.tenant = %(tenant)s::VARCHAR) AND (%(since)s::TIMESTAMP WITH TIME ZONE IS NULL OR smp.dead_letter.at >= %(since)s::TIMESTAMP WITH TIME ZONE) AND (%(after_id)s::UUID IS NULL OR smp.document.id > %(after_id)s::UUID)
ORDER BY smp.document.id
LIMIT %(limit)s::INTEGER;
