UPDATE smp.worker
SET beat_at=clock_timestamp(), settled=%(settled)s::BIGINT, settled_at=(clock_timestamp() - CAST(%(ago)s AS DOUBLE PRECISION) * interval '1 second')
WHERE smp.worker.id = %(me)s::BIGINT AND smp.worker.dead_at IS NULL
RETURNING smp.worker.id;
