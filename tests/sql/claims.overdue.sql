WITH late AS MATERIALIZED
(SELECT smp.work.document_id AS document_id, smp.work.claim_seq AS claim_seq, smp.work.deadline_at AS deadline_at, smp.worker.dead_at AS dead_at, smp.worker.id AS known, smp.worker.started_at < pg_postmaster_start_time() AND smp.worker.beat_at < pg_postmaster_start_time() AS unheard
FROM smp.work
LEFT OUTER JOIN smp.worker ON smp.worker.id = smp.work.worker
WHERE smp.work.lane = 'claimed' AND smp.work.state = ANY (%(states)s::TEXT[]) AND (smp.worker.id IS NULL OR smp.worker.dead_at IS NOT NULL OR smp.work.deadline_at + %(grace)s * interval '1 second' < statement_timestamp()))
SELECT smp.work.document_id, smp.work.claim_seq, smp.work.attempt, smp.work.crashes, smp.work.worker, smp.work.run_at, smp.work.deadline_at, smp.work.entered_at, smp.work.tokens, smp.document.id, smp.document.tenant, smp.document.source_uri, smp.document.name, smp.document.state, smp.document.version, smp.document.life, smp.document.generation, smp.document.media_type, smp.document.size_bytes, smp.document.content_sha256, smp.document.input_sha256, smp.document.text_sha256, smp.document.published_sha256, smp.document.text_chars, smp.document.chunk_count, smp.document.vector_count, smp.document.correlation_id, smp.document.traceparent, smp.document.last_error, smp.document.metadata, smp.document.parent_id, smp.document.depth, smp.document.children, smp.document.created_at, smp.document.updated_at, late.dead_at, late.known, late.unheard, set_config(%(set_config_2)s::VARCHAR, %(patience)s::VARCHAR, true) AS set_config_1
FROM smp.work
JOIN smp.document ON smp.document.id = smp.work.document_id
JOIN late ON late.document_id = smp.work.document_id AND late.claim_seq = smp.work.claim_seq AND late.deadline_at = smp.work.deadline_at
WHERE smp.work.document_id = ANY (array((SELECT late.document_id
FROM late)))
ORDER BY smp.work.document_id
LIMIT %(param_1)s::INTEGER
FOR NO KEY UPDATE OF work, document SKIP LOCKED;
