UPDATE smp.worker
SET dead_at=clock_timestamp()
WHERE smp.worker.lifecycle = ANY (%(lifecycles)s::TEXT[]) AND smp.worker.dead_at IS NULL
RETURNING smp.worker.id;
