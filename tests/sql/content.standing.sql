SELECT smp.document.id, smp.parsed_document.sha256 AS text_sha256, (SELECT min(smp.chunk_buffer.set_sha256) AS min_1
FROM smp.chunk_buffer
WHERE smp.chunk_buffer.document_id = smp.document.id) AS buffered_sha256, smp.document.published_sha256, smp.document.chunk_count > %(chunk_count_1)s::INTEGER AND smp.document.chunk_count = smp.document.vector_count AS is_whole, (SELECT count(*) AS count_1
FROM smp.chunk_buffer
LEFT OUTER JOIN smp.vector_buffer ON smp.vector_buffer.document_id = smp.chunk_buffer.document_id AND smp.vector_buffer.chunk_id = smp.chunk_buffer.id
WHERE smp.chunk_buffer.document_id = smp.document.id AND smp.vector_buffer.chunk_id IS NULL) AS without_vector, (SELECT array_agg(DISTINCT smp.embedder.fingerprint) AS array_agg_1
FROM smp.vector_buffer
JOIN smp.embedder ON smp.embedder.id = smp.vector_buffer.embedder_id
WHERE smp.vector_buffer.document_id = smp.document.id) AS buffered_embedders, (SELECT array_agg(DISTINCT smp.embedder.fingerprint) AS array_agg_2
FROM smp.chunk_vector
JOIN smp.chunk ON smp.chunk.id = smp.chunk_vector.chunk_id
JOIN smp.embedder ON smp.embedder.id = smp.chunk_vector.embedder_id
WHERE smp.chunk.document_id = smp.document.id) AS published_embedders
FROM smp.document
LEFT OUTER JOIN smp.parsed_document ON smp.parsed_document.document_id = smp.document.id
WHERE smp.document.id = ANY (%(ids)s::UUID[]);
