SELECT smp.blob_object.key
FROM smp.blob_object
WHERE smp.blob_object.key = ANY (%(keys)s::TEXT[]) AND NOT smp.blob_object.erasing AND NOT (EXISTS (SELECT *
FROM smp.blob
WHERE smp.blob.key = smp.blob_object.key))
ORDER BY smp.blob_object.key
FOR UPDATE SKIP LOCKED;
