SELECT smp.worker.id, smp.worker.serves, smp.worker.draining, smp.worker.dead_at, smp.worker.dead_after_seconds, clock_timestamp() - smp.worker.beat_at >= %(beat_seconds_1)s::INTEGER * smp.worker.beat_seconds * interval '1 second' AS is_silent, smp.worker.dead_at IS NULL AND clock_timestamp() - smp.worker.beat_at < smp.worker.dead_after_seconds * interval '1 second' AS lives, CAST(EXTRACT(epoch
FROM clock_timestamp() - smp.worker.beat_at) AS DOUBLE PRECISION) AS silent, EXISTS (SELECT *
FROM smp.work
WHERE smp.work.lane = 'claimed' AND smp.work.worker = smp.worker.id AND smp.work.alone) AS alone
FROM smp.worker
ORDER BY smp.worker.id;
