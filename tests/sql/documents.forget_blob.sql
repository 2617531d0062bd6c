DELETE FROM smp.blob
WHERE smp.blob.document_id = %(document)s::UUID;
