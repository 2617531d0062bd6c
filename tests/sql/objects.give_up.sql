UPDATE smp.blob_object
SET erasing=true
WHERE smp.blob_object.key = ANY (%(keys)s::TEXT[]) AND NOT (EXISTS (SELECT *
FROM smp.blob
WHERE smp.blob.key = smp.blob_object.key))
RETURNING smp.blob_object.key;
