INSERT INTO smp.worker (host, pid, version, serves)
VALUES (%(host)s::VARCHAR, %(pid)s::INTEGER, %(version)s::VARCHAR, %(serves)s::JSONB)
RETURNING smp.worker.id;
