WITH due AS MATERIALIZED
(SELECT smp.placement.document_id AS document_id
FROM smp.placement
WHERE smp.placement.withdraw_at IS NOT NULL AND smp.placement.stage = %(trigger)s::VARCHAR AND smp.placement.run_at <= statement_timestamp()
ORDER BY smp.placement.run_at, smp.placement.document_id
LIMIT %(limit)s::INTEGER
FOR NO KEY UPDATE SKIP LOCKED),
taken AS
(UPDATE smp.placement
SET run_at=(clock_timestamp() + %(lease)s * interval '1 second'), claim_seq=nextval('smp.claim_seq'), attempts=(smp.placement.attempts + %(attempts_1)s::INTEGER)
FROM due
WHERE smp.placement.document_id = due.document_id AND smp.placement.stage = %(trigger)s::VARCHAR
RETURNING smp.placement.document_id, smp.placement.claim_seq, smp.placement.attempts, smp.placement.run_at, smp.placement.withdraw_at)
SELECT smp.document.id, smp.document.tenant, smp.document.source_uri, smp.document.name, smp.document.state, smp.document.version, smp.document.life, smp.document.generation, smp.document.media_type, smp.document.size_bytes, smp.document.path, smp.document.content_sha256, smp.document.input_sha256, smp.document.text_sha256, smp.document.published_sha256, smp.document.text_chars, smp.document.chunk_count, smp.document.vector_count, smp.document.correlation_id, smp.document.traceparent, smp.document.last_error, smp.document.metadata, smp.document.parent_id, smp.document.depth, smp.document.children, smp.document.created_at, smp.document.updated_at, taken.claim_seq, taken.attempts, taken.run_at, taken.withdraw_at
FROM smp.document
JOIN taken ON taken.document_id = smp.document.id
ORDER BY taken.claim_seq;
