INSERT INTO smp.blob (document_id, sha256, content, key)
VALUES (%(document)s::UUID, %(content_sha256)s::VARCHAR, %(content)s, %(blob_key)s::VARCHAR)
ON CONFLICT (document_id) DO UPDATE SET sha256 = excluded.sha256, content = excluded.content, key = excluded.key;
