WITH stale AS
(SELECT smp.worker.id AS id
FROM smp.worker
WHERE smp.worker.dead_at IS NULL AND smp.worker.beat_at < clock_timestamp() - smp.worker.dead_after_seconds * interval '1 second'
ORDER BY smp.worker.id
FOR UPDATE SKIP LOCKED)
UPDATE smp.worker
SET dead_at=clock_timestamp()
FROM stale
WHERE smp.worker.id = stale.id
RETURNING smp.worker.id;
