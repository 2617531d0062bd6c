UPDATE smp.placement
SET run_at=(clock_timestamp() + %(after)s * interval '1 second'), claim_seq=%(claim_seq)s::BIGINT, last_error=%(error)s::VARCHAR
WHERE smp.placement.document_id = %(document)s::UUID AND smp.placement.stage = %(trigger)s::VARCHAR AND smp.placement.claim_seq = %(seq)s::BIGINT;
