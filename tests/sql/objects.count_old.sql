SELECT count(*) AS count_1
FROM smp.blob_object
WHERE smp.blob_object.seen_at <= clock_timestamp() - %(older_than)s * interval '1 second' AND NOT smp.blob_object.erasing AND NOT (EXISTS (SELECT *
FROM smp.blob
WHERE smp.blob.key = smp.blob_object.key));
