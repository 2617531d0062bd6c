SELECT smp.work.document_id, smp.work.lane, smp.work.attempt, smp.work.crashes
FROM smp.work
WHERE smp.work.document_id = ANY (%(ids)s::UUID[])
ORDER BY smp.work.document_id
FOR NO KEY UPDATE;
