SELECT smp.document.id
FROM smp.document
JOIN smp.dead_letter ON smp.dead_letter.document_id = smp.document.id
WHERE smp.document.id = ANY (%(ids)s::UUID[]) AND (%(stage)s::VARCHAR IS NULL OR smp.dead_letter.stage = %(stage)s::VARCHAR) AND (%(code)s::VARCHAR IS NULL OR smp.dead_letter.code = %(code)s::VARCHAR) AND (%(tenant)s::VARCHAR IS NULL OR smp.document.tenant = %(tenant)s::VARCHAR) AND (%(since)s::TIMESTAMP WITH TIME ZONE IS NULL OR smp.dead_letter.at >= %(since)s::TIMESTAMP WITH TIME ZONE)
ORDER BY smp.document.id;
