INSERT INTO smp.worker (host, pid, version, lifecycle, beat_seconds, dead_after_seconds, serves)
VALUES (%(host)s::VARCHAR, %(pid)s::INTEGER, %(version)s::VARCHAR, %(lifecycle)s::VARCHAR, %(beat_seconds)s, %(dead_after_seconds)s, %(serves)s::JSONB)
RETURNING smp.worker.id;
