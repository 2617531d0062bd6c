UPDATE smp.worker
SET draining=%(draining)s
WHERE smp.worker.id = %(me)s::BIGINT;
