SELECT smp.dead_letter.document_id, smp.dead_letter.stage, smp.dead_letter.state, smp.dead_letter.code, smp.dead_letter.reason, smp.dead_letter.attempts, smp.dead_letter.crashes, smp.dead_letter.error_type, smp.dead_letter.traceback, smp.dead_letter.at, smp.document.tenant, smp.document.name
FROM smp.dead_letter
JOIN smp.document ON smp.document.id = smp.dead_letter.document_id
WHERE smp.dead_letter.document_id = %(document)s::UUID;
