DELETE FROM smp.worker
WHERE smp.worker.id = %(me)s::BIGINT;
