WITH theirs AS MATERIALIZED
(SELECT w.document_id AS document_id
FROM smp.work AS w
WHERE w.lane = 'claimed' AND w.worker = ANY (%(workers)s::BIGINT[])
ORDER BY w.document_id
FOR NO KEY UPDATE)
UPDATE smp.work
SET lane=%(lane)s::VARCHAR, claim_seq=nextval('smp.claim_seq'), attempt=(smp.work.attempt - %(attempt_1)s::SMALLINT), worker=NULL, deadline_at=NULL
WHERE smp.work.document_id = ANY (array((SELECT theirs.document_id
FROM theirs))) AND smp.work.lane = 'claimed';
