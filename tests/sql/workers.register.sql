INSERT INTO smp.worker (host, pid, version)
VALUES (%(host)s::VARCHAR, %(pid)s::INTEGER, %(version)s::VARCHAR)
RETURNING smp.worker.id;
