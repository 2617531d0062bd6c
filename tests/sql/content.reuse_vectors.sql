INSERT INTO smp.vector_buffer (document_id, embedder_id, chunk_id, vector)
SELECT smp.chunk_buffer.document_id, smp.chunk_vector.embedder_id, smp.chunk_vector.chunk_id, smp.chunk_vector.vector
FROM smp.chunk_buffer
JOIN smp.chunk_vector ON smp.chunk_vector.chunk_id = smp.chunk_buffer.id
WHERE smp.chunk_buffer.document_id = %(document)s::UUID AND smp.chunk_vector.embedder_id = %(embedder)s::SMALLINT
ON CONFLICT DO NOTHING;
