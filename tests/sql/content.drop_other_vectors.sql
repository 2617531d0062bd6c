DELETE FROM smp.vector_buffer USING json_to_recordset(CAST(%(embedded)s::VARCHAR AS JSON)) AS embedded(document_id UUID, fingerprint TEXT), smp.embedder
WHERE smp.vector_buffer.document_id = embedded.document_id AND smp.vector_buffer.embedder_id = smp.embedder.id AND (smp.embedder.fingerprint != embedded.fingerprint OR NOT (EXISTS (SELECT *
FROM smp.chunk_buffer
WHERE smp.chunk_buffer.document_id = smp.vector_buffer.document_id AND smp.chunk_buffer.id = smp.vector_buffer.chunk_id)));
