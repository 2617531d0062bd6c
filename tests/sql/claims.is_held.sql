SELECT count(*) AS count_1
FROM smp.work
WHERE smp.work.document_id = %(id)s::UUID AND smp.work.claim_seq = %(seq)s::BIGINT AND smp.work.lane = 'claimed';
