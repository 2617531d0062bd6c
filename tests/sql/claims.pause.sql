INSERT INTO smp.pause (stage, reason, by, until)
VALUES (%(stage)s::VARCHAR, %(reason)s::VARCHAR, %(by)s::VARCHAR, (clock_timestamp() + %(pause_seconds)s * interval '1 second'))
ON CONFLICT (stage) DO UPDATE SET reason = excluded.reason, by = excluded.by, until = excluded.until, at = clock_timestamp();
