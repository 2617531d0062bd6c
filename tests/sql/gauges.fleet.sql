SELECT smp.worker.id, smp.worker.serves, smp.worker.draining, smp.worker.dead_at, smp.worker.beat_at, smp.worker.started_at, smp.worker.settled_at, statement_timestamp() AS now
FROM smp.worker
ORDER BY smp.worker.id;
