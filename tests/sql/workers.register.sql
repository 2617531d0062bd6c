INSERT INTO smp.worker (host, pid, version, serves)
VALUES (%(host)s::VARCHAR, %(pid)s::INTEGER, %(version)s::VARCHAR, %(serves)s::TEXT[])
RETURNING smp.worker.id;
