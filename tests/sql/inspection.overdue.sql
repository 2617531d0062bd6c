SELECT count(*) AS count, min(smp.work.deadline_at) AS oldest_at
FROM smp.work
WHERE smp.work.lane = 'claimed' AND smp.work.deadline_at < clock_timestamp() - %(grace)s * interval '1 second';
