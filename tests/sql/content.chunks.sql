SELECT smp.chunk_buffer.id, smp.chunk_buffer.index, smp.chunk_buffer.text, smp.chunk_buffer.start, smp.chunk_buffer."end", smp.chunk_buffer.headings, smp.chunk_buffer.page, smp.chunk_buffer.metadata
FROM smp.chunk_buffer
WHERE smp.chunk_buffer.document_id = %(document)s::UUID
ORDER BY smp.chunk_buffer.index;
