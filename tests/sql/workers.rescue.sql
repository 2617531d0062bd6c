SELECT smp.transition.document_id, smp.transition.version, smp.transition.life, smp.transition.generation, smp.transition.trigger, smp.transition.from_state, smp.transition.to_state, smp.transition.hop, smp.transition.attempt, smp.transition.worker, smp.transition.claim_seq, smp.transition.by, smp.transition.reason, smp.transition.correlation_id, smp.transition.run_seconds, smp.transition.tokens, smp.transition.error, smp.transition.at
FROM smp.transition
WHERE smp.transition.document_id = %(document)s::UUID AND smp.transition.life = %(life)s::INTEGER AND smp.transition.error = 'crashed' AND smp.transition.run_seconds IS NULL
ORDER BY smp.transition.version DESC
LIMIT %(param_1)s::INTEGER;
