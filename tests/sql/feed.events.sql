SELECT smp.transition.document_id, smp.transition.version, smp.transition.life, smp.transition.generation, smp.transition.trigger, smp.transition.from_state, smp.transition.to_state, smp.transition.hop, smp.transition.attempt, smp.transition.worker, smp.transition.claim_seq, smp.transition.by, smp.transition.reason, smp.transition.correlation_id, smp.transition.run_seconds, smp.transition.tokens, smp.transition.error, smp.transition.at, smp.transition.xact
FROM smp.transition
WHERE smp.transition.xact >= %(xact)s::BIGINT AND smp.transition.xact < CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT) + (SELECT coalesce(max(smp.restore."offset"), %(coalesce_2)s::INTEGER) AS coalesce_1
FROM smp.restore) AND (smp.transition.xact, smp.transition.document_id, smp.transition.version) > (%(xact)s::BIGINT, %(document)s::UUID, %(version)s::INTEGER)
ORDER BY smp.transition.xact, smp.transition.document_id, smp.transition.version
LIMIT %(limit)s::INTEGER;
