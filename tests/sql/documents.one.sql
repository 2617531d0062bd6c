SELECT smp.document.id, smp.document.tenant, smp.document.source_uri, smp.document.name, smp.document.state, smp.document.version, smp.document.life, smp.document.generation, smp.document.media_type, smp.document.size_bytes, smp.document.path, smp.document.content_sha256, smp.document.input_sha256, smp.document.text_sha256, smp.document.published_sha256, smp.document.text_chars, smp.document.chunk_count, smp.document.vector_count, smp.document.correlation_id, smp.document.traceparent, smp.document.last_error, smp.document.metadata, smp.document.parent_id, smp.document.depth, smp.document.children, smp.document.created_at, smp.document.updated_at, smp.work.lane, smp.work.attempt, smp.work.crashes, smp.work.alone, smp.work.worker, smp.work.deadline_at, smp.work.run_at, smp.duplicate_of.owner, smp.parsed_document.warnings
FROM smp.document
LEFT OUTER JOIN smp.work ON smp.work.document_id = smp.document.id
LEFT OUTER JOIN smp.duplicate_of ON smp.duplicate_of.document_id = smp.document.id
LEFT OUTER JOIN smp.parsed_document ON smp.parsed_document.document_id = smp.document.id AND smp.parsed_document.generation = smp.document.generation
WHERE smp.document.id = %(document)s::UUID;
