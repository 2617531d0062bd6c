DELETE FROM smp.chunk
WHERE smp.chunk.document_id = ANY (%(ids)s::UUID[]);

DELETE FROM smp.chunk_buffer
WHERE smp.chunk_buffer.document_id = ANY (%(ids)s::UUID[]);

DELETE FROM smp.vector_buffer
WHERE smp.vector_buffer.document_id = ANY (%(ids)s::UUID[]);

DELETE FROM smp.parsed_document
WHERE smp.parsed_document.document_id = ANY (%(ids)s::UUID[]);

DELETE FROM smp.product
WHERE smp.product.document_id = ANY (%(ids)s::UUID[]);

DELETE FROM smp.blob
WHERE smp.blob.document_id = ANY (%(ids)s::UUID[]);

UPDATE smp.document
SET media_type=%(media_type)s::VARCHAR, path=%(path)s::VARCHAR, text_sha256=%(text_sha256)s::VARCHAR, published_sha256=%(published_sha256)s::VARCHAR, text_chars=%(text_chars)s::INTEGER, chunk_count=%(chunk_count)s::INTEGER, vector_count=%(vector_count)s::INTEGER, metadata='{}'::jsonb, children='{}'::jsonb
WHERE smp.document.id = ANY (%(ids)s::UUID[]);
