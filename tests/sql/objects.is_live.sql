SELECT smp.blob_object.key
FROM smp.blob_object
WHERE smp.blob_object.key = %(key)s::VARCHAR AND NOT smp.blob_object.erasing;
