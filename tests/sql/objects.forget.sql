DELETE FROM smp.blob_object
WHERE smp.blob_object.key = ANY (%(keys)s::TEXT[]) AND smp.blob_object.erasing AND smp.blob_object.seen_at <= clock_timestamp() - %(older_than)s * interval '1 second';
