INSERT INTO smp.blob_object (key, content)
VALUES (%(key)s::VARCHAR, %(content)s::VARCHAR)
ON CONFLICT (content)
WHERE NOT erasing DO UPDATE SET seen_at = clock_timestamp()
RETURNING smp.blob_object.key;
