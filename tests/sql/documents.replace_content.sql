UPDATE smp.document
SET name=%(name)s::VARCHAR, generation=(smp.document.generation + %(generation_1)s::INTEGER), size_bytes=%(size_bytes)s::BIGINT, path=%(path)s::VARCHAR, content_sha256=%(content_sha256)s::VARCHAR, correlation_id=%(correlation_id)s::VARCHAR, traceparent=%(traceparent)s::VARCHAR, metadata=%(metadata)s::JSONB
WHERE smp.document.id = %(document)s::UUID;
