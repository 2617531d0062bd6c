SELECT min(pg_catalog.pg_stat_activity.xact_start) AS since, statement_timestamp() AS now
FROM pg_catalog.pg_stat_activity
WHERE pg_catalog.pg_stat_activity.datname = current_database() AND pg_catalog.pg_stat_activity.pid != pg_backend_pid();
