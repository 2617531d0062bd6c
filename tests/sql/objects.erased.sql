DELETE FROM smp.blob_object
WHERE smp.blob_object.key = ANY (%(keys)s::TEXT[]) AND smp.blob_object.erasing
RETURNING smp.blob_object.key;
