DELETE FROM smp.worker
WHERE smp.worker.dead_at < clock_timestamp() - interval '1 hour' AND NOT (EXISTS (SELECT *
FROM smp.work
WHERE smp.work.lane = 'claimed' AND smp.work.worker = smp.worker.id));
