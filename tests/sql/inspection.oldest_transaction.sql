SELECT who, extract(epoch
FROM clock_timestamp() - since)::double precision AS seconds
FROM (SELECT xact_start AS since, 'process ' || pid || ' of ' || usename || coalesce(' (' || nullif(application_name, '') || ')', '') || ', ' || state AS who
FROM pg_catalog.pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
UNION ALL
SELECT prepared, 'prepared transaction ' || gid
FROM pg_catalog.pg_prepared_xacts
WHERE database = current_database()) AS found
WHERE since IS NOT NULL
ORDER BY since
LIMIT 1;
