SELECT smp.dead_letter.document_id, smp.dead_letter.stage, smp.dead_letter.state, smp.dead_letter.code, smp.dead_letter.reason, smp.dead_letter.attempts, smp.dead_letter.crashes, smp.dead_letter.error_type, smp.dead_letter.traceback, smp.dead_letter.at, smp.document.tenant, smp.document.name
FROM smp.dead_letter
JOIN smp.document ON smp.document.id = smp.dead_letter.document_id
WHERE (%(stage)s::VARCHAR IS NULL OR smp.dead_letter.stage = %(stage)s::VARCHAR) AND (%(code)s::VARCHAR IS NULL OR smp.dead_letter.code = %(code)s::VARCHAR) AND (%(tenant)s::VARCHAR IS NULL OR smp.document.tenant = %(tenant)s::VARCHAR) AND (%(since)s::TIMESTAMP WITH TIME ZONE IS NULL OR smp.dead_letter.at >= %(since)s::TIMESTAMP WITH TIME ZONE) AND (%(after_id)s::UUID IS NULL OR (smp.dead_letter.at, smp.dead_letter.document_id) < (%(after_at)s::TIMESTAMP WITH TIME ZONE, %(after_id)s::UUID))
ORDER BY smp.dead_letter.at DESC, smp.dead_letter.document_id DESC
LIMIT %(limit)s::INTEGER;
