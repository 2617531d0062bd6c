SELECT smp.work.priority
FROM smp.work
WHERE smp.work.document_id = %(document)s::UUID;
