INSERT INTO smp.worker (host, pid, version, lifecycle, serves)
VALUES (%(host)s::VARCHAR, %(pid)s::INTEGER, %(version)s::VARCHAR, %(lifecycle)s::VARCHAR, %(serves)s::JSONB)
RETURNING smp.worker.id;
