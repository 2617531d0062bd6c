DELETE FROM smp.vector_buffer
WHERE smp.vector_buffer.document_id = ANY (%(ids)s::UUID[]) AND (EXISTS (SELECT *
FROM smp.document
WHERE smp.document.published_sha256 IS NOT NULL AND smp.document.id = smp.vector_buffer.document_id));

DELETE FROM smp.chunk_buffer
WHERE smp.chunk_buffer.document_id = ANY (%(ids)s::UUID[]) AND (EXISTS (SELECT *
FROM smp.document
WHERE smp.document.published_sha256 IS NOT NULL AND smp.document.id = smp.chunk_buffer.document_id));
