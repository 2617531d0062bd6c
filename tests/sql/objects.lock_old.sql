SELECT smp.blob_object.key
FROM smp.blob_object
WHERE smp.blob_object.seen_at <= clock_timestamp() - %(older_than)s * interval '1 second' AND NOT smp.blob_object.erasing AND NOT (EXISTS (SELECT *
FROM smp.blob
WHERE smp.blob.key = smp.blob_object.key))
ORDER BY smp.blob_object.key
LIMIT %(param_1)s::INTEGER
FOR UPDATE SKIP LOCKED;
