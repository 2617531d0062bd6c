SELECT smp.document.path, smp.blob.sha256, smp.blob.content, smp.blob.key
FROM smp.document
LEFT OUTER JOIN smp.blob ON smp.blob.document_id = smp.document.id
WHERE smp.document.id = %(document)s::UUID;
