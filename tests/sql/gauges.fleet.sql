SELECT smp.worker.id, smp.worker.serves, smp.worker.draining, smp.worker.dead_at, smp.worker.goes_on_as, smp.worker.started_at, smp.worker.settled_at, clock_timestamp() - smp.worker.beat_at >= %(beat_seconds_1)s::INTEGER * smp.worker.beat_seconds * interval '1 second' AS is_silent, smp.worker.dead_at IS NULL AND clock_timestamp() - smp.worker.beat_at < smp.worker.dead_after_seconds * interval '1 second' AS lives, statement_timestamp() AS now
FROM smp.worker
ORDER BY smp.worker.id;
