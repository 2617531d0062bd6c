SELECT %(param_1)s::INTEGER - (CAST(smp.chunk_vector.vector AS VECTOR(256)) <=> CAST(%(question)s::DOUBLE PRECISION[] AS VECTOR(256))) AS score, smp.chunk.id AS chunk_id, smp.chunk.text AS passage, smp.chunk.page, smp.chunk.headings, smp.document.id, smp.document.tenant, smp.document.source_uri, smp.document.name, smp.document.state, smp.document.version, smp.document.life, smp.document.generation, smp.document.media_type, smp.document.size_bytes, smp.document.path, smp.document.content_sha256, smp.document.input_sha256, smp.document.text_sha256, smp.document.published_sha256, smp.document.text_chars, smp.document.chunk_count, smp.document.vector_count, smp.document.correlation_id, smp.document.last_error, smp.document.metadata, smp.document.parent_id, smp.document.depth, smp.document.children, smp.document.created_at, smp.document.updated_at
FROM smp.chunk_vector
JOIN smp.chunk ON smp.chunk.id = smp.chunk_vector.chunk_id
JOIN smp.document ON smp.document.id = smp.chunk.document_id
WHERE smp.chunk_vector.embedder_id = 1 AND smp.document.tenant = %(tenant)s::VARCHAR
ORDER BY CAST(smp.chunk_vector.vector AS VECTOR(256)) <=> CAST(%(question)s::DOUBLE PRECISION[] AS VECTOR(256))
LIMIT %(limit)s::INTEGER;
