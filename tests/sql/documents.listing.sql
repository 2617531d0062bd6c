SELECT smp.document.id, smp.document.tenant, smp.document.source_uri, smp.document.name, smp.document.state, smp.document.version, smp.document.life, smp.document.generation, smp.document.media_type, smp.document.size_bytes, smp.document.path, smp.document.content_sha256, smp.document.input_sha256, smp.document.text_sha256, smp.document.published_sha256, smp.document.text_chars, smp.document.chunk_count, smp.document.vector_count, smp.document.correlation_id, smp.document.traceparent, smp.document.last_error, smp.document.metadata, smp.document.parent_id, smp.document.depth, smp.document.children, smp.document.created_at, smp.document.updated_at
FROM smp.document
WHERE (%(state)s::VARCHAR IS NULL OR smp.document.state = %(state)s::VARCHAR) AND (%(tenant)s::VARCHAR IS NULL OR smp.document.tenant = %(tenant)s::VARCHAR) AND (%(after)s::UUID IS NULL OR (smp.document.created_at, smp.document.id) > ((SELECT smp.document.created_at
FROM smp.document
WHERE smp.document.id = %(after)s::UUID), %(after)s::UUID))
ORDER BY smp.document.created_at, smp.document.id
LIMIT %(limit)s::INTEGER;
