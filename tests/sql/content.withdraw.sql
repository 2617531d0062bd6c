DELETE FROM smp.vector_buffer
WHERE smp.vector_buffer.document_id = ANY (%(ids)s::UUID[]);

DELETE FROM smp.chunk_buffer
WHERE smp.chunk_buffer.document_id = ANY (%(ids)s::UUID[]);

DELETE FROM smp.chunk
WHERE smp.chunk.document_id = ANY (%(ids)s::UUID[]);

UPDATE smp.document
SET published_sha256=%(published_sha256)s::VARCHAR, chunk_count=%(chunk_count)s::INTEGER, vector_count=%(vector_count)s::INTEGER
WHERE smp.document.id = ANY (%(ids)s::UUID[]) AND smp.document.published_sha256 IS NOT NULL;
