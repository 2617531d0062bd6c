INSERT INTO smp.chunk_buffer (document_id, set_sha256, id, index, text, start, "end", headings, page, metadata)
SELECT smp.chunk.document_id, smp.document.published_sha256, smp.chunk.id, smp.chunk.index, smp.chunk.text, smp.chunk.start, smp.chunk."end", smp.chunk.headings, smp.chunk.page, smp.chunk.metadata
FROM smp.chunk
JOIN smp.document ON smp.document.id = smp.chunk.document_id
WHERE smp.chunk.document_id = %(document)s::UUID AND smp.document.published_sha256 IS NOT NULL AND NOT (EXISTS (SELECT *
FROM smp.chunk_buffer
WHERE smp.chunk_buffer.document_id = %(document)s::UUID))
ON CONFLICT DO NOTHING;

INSERT INTO smp.vector_buffer (document_id, embedder_id, chunk_id, vector)
SELECT smp.chunk_buffer.document_id, smp.chunk_vector.embedder_id, smp.chunk_vector.chunk_id, smp.chunk_vector.vector
FROM smp.chunk_buffer
JOIN smp.chunk_vector ON smp.chunk_vector.chunk_id = smp.chunk_buffer.id
WHERE smp.chunk_buffer.document_id = %(document)s::UUID
ON CONFLICT DO NOTHING;
