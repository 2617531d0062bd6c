SELECT DISTINCT smp.blob.key
FROM smp.blob
WHERE smp.blob.document_id = ANY (%(ids)s::UUID[]) AND smp.blob.key IS NOT NULL;
