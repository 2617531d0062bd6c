UPDATE smp.worker
SET goes_on_as=%(worker)s::BIGINT
WHERE smp.worker.id = %(me)s::BIGINT;
