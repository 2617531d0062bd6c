WITH due AS MATERIALIZED
(SELECT w.document_id AS document_id
FROM smp.work AS w
WHERE w.lane = 'deferred' AND w.run_at <= statement_timestamp()
ORDER BY w.run_at
LIMIT %(param_2)s::INTEGER
FOR NO KEY UPDATE SKIP LOCKED),
ready AS
(UPDATE smp.work
SET lane=%(param_1)s::VARCHAR
WHERE smp.work.document_id = ANY (array((SELECT due.document_id
FROM due))) AND smp.work.lane = 'deferred'
RETURNING smp.work.document_id)
SELECT (SELECT count(*) AS count_1
FROM ready) AS count, (SELECT pg_notify(%(pg_notify_2)s::VARCHAR, %(pg_notify_3)s::VARCHAR) AS pg_notify_1
FROM ready
LIMIT %(param_3)s::INTEGER) AS notified;
