SELECT smp.chunk_buffer.document_id, count(*) AS stored
FROM smp.chunk_buffer
WHERE smp.chunk_buffer.document_id = ANY (%(ids)s::UUID[])
GROUP BY smp.chunk_buffer.document_id;
