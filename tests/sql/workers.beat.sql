UPDATE smp.worker
SET beat_at=clock_timestamp()
WHERE smp.worker.id = %(me)s::BIGINT AND smp.worker.dead_at IS NULL
RETURNING smp.worker.id;
