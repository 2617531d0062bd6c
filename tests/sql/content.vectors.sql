SELECT smp.vector_buffer.vector
FROM smp.vector_buffer
JOIN smp.chunk_buffer ON smp.chunk_buffer.document_id = smp.vector_buffer.document_id AND smp.chunk_buffer.id = smp.vector_buffer.chunk_id
WHERE smp.chunk_buffer.document_id = %(document)s::UUID
ORDER BY smp.chunk_buffer.index;
