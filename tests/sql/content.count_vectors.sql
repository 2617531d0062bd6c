SELECT smp.chunk_buffer.document_id, count(*) AS expected, count(smp.vector_buffer.chunk_id) AS stored
FROM smp.chunk_buffer
LEFT OUTER JOIN smp.vector_buffer ON smp.vector_buffer.document_id = smp.chunk_buffer.document_id AND smp.vector_buffer.chunk_id = smp.chunk_buffer.id
WHERE smp.chunk_buffer.document_id = ANY (%(ids)s::UUID[])
GROUP BY smp.chunk_buffer.document_id;
