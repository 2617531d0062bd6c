WITH mine AS MATERIALIZED
(SELECT w.document_id AS document_id
FROM smp.work AS w
WHERE w.lane = 'claimed' AND w.worker = %(me)s::BIGINT AND w.document_id != ALL (%(keep)s::UUID[])
ORDER BY w.document_id
FOR NO KEY UPDATE SKIP LOCKED)
UPDATE smp.work
SET lane=%(lane)s::VARCHAR, claim_seq=nextval('smp.claim_seq'), attempt=(smp.work.attempt - %(attempt_1)s::SMALLINT), worker=NULL, deadline_at=NULL
WHERE smp.work.document_id = ANY (array((SELECT mine.document_id
FROM mine)))
RETURNING smp.work.document_id;
