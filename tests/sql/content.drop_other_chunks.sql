DELETE FROM smp.chunk_buffer USING json_to_recordset(CAST(%(chunk_set)s::VARCHAR AS JSON)) AS chunk_set(document_id UUID, sha256 TEXT)
WHERE smp.chunk_buffer.document_id = chunk_set.document_id AND smp.chunk_buffer.set_sha256 != chunk_set.sha256;
