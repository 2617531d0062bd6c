SELECT current_setting('server_version') AS version, current_setting('server_version_num')::integer AS number, (SELECT extversion
FROM pg_catalog.pg_extension
WHERE extname = 'vector') AS vector, clock_timestamp() AS now, pg_backend_pid() AS backend;
