DELETE FROM smp.worker
WHERE smp.worker.dead_at IS NOT NULL AND NOT (EXISTS (SELECT *
FROM smp.work
WHERE smp.work.lane = 'claimed' AND smp.work.worker = smp.worker.id));
