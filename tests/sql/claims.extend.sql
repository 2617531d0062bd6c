UPDATE smp.work
SET deadline_at=(clock_timestamp() + %(deadline)s * interval '1 second')
WHERE smp.work.document_id = %(id)s::UUID AND smp.work.claim_seq = %(seq)s::BIGINT AND smp.work.lane = 'claimed'
RETURNING smp.work.document_id, set_config(%(set_config_2)s::VARCHAR, %(patience)s::VARCHAR, true) AS set_config_1;
