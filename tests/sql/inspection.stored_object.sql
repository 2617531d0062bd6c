SELECT smp.blob.key, smp.document.size_bytes
FROM smp.blob
JOIN smp.document ON smp.document.id = smp.blob.document_id
WHERE smp.blob.key IS NOT NULL AND smp.document.size_bytes > %(size_bytes_1)s::BIGINT
ORDER BY smp.blob.key
LIMIT %(param_1)s::INTEGER;
