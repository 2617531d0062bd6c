SELECT smp.chunk_buffer.id, smp.chunk_buffer.index, smp.chunk_buffer.text
FROM smp.chunk_buffer
WHERE smp.chunk_buffer.document_id = %(document)s::UUID AND NOT (EXISTS (SELECT *
FROM smp.vector_buffer
WHERE smp.vector_buffer.document_id = smp.chunk_buffer.document_id AND smp.vector_buffer.embedder_id = %(embedder)s::SMALLINT AND smp.vector_buffer.chunk_id = smp.chunk_buffer.id))
ORDER BY smp.chunk_buffer.index;
