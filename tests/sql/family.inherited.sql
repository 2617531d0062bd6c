SELECT smp.work.priority, smp.document.metadata
FROM smp.work
JOIN smp.document ON smp.document.id = smp.work.document_id
WHERE smp.work.document_id = %(document)s::UUID;
