SELECT smp.worker.id, smp.worker.serves, smp.worker.draining, smp.worker.dead_at, CAST(EXTRACT(epoch
FROM clock_timestamp() - smp.worker.beat_at) AS DOUBLE PRECISION) AS silent
FROM smp.worker
ORDER BY smp.worker.id;
