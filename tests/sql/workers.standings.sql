WITH held AS
(SELECT smp.work.worker AS worker, count(*) AS claims, min(smp.work.entered_at) AS oldest_at
FROM smp.work
WHERE smp.work.lane = 'claimed'
GROUP BY smp.work.worker)
SELECT smp.worker.id, smp.worker.host, smp.worker.pid, smp.worker.version, smp.worker.serves, smp.worker.draining, smp.worker.settled, smp.worker.started_at, smp.worker.dead_at, smp.worker.goes_on_as, CAST(EXTRACT(epoch
FROM clock_timestamp() - smp.worker.beat_at) AS DOUBLE PRECISION) AS silent_seconds, clock_timestamp() - smp.worker.beat_at >= %(beat_seconds_1)s::INTEGER * smp.worker.beat_seconds * interval '1 second' AS is_silent, CASE WHEN (smp.worker.lifecycle IS NOT NULL) THEN EXISTS (SELECT *
FROM smp.lifecycle
WHERE smp.lifecycle.fingerprint = smp.worker.lifecycle) END AS is_lifecycle_known, coalesce(held.claims, %(coalesce_1)s::INTEGER) AS claims, held.oldest_at
FROM smp.worker
LEFT OUTER JOIN held ON held.worker = smp.worker.id
ORDER BY smp.worker.id;
