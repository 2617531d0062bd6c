SELECT smp.blob_object.key
FROM smp.blob_object
WHERE smp.blob_object.erasing AND smp.blob_object.key > %(after)s::VARCHAR
ORDER BY smp.blob_object.key
LIMIT %(param_1)s::INTEGER;
