SELECT smp.blob_object.key
FROM smp.blob_object
WHERE NOT smp.blob_object.erasing
ORDER BY smp.blob_object.key
LIMIT %(param_1)s::INTEGER;
