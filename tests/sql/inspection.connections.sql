SELECT (SELECT sum(numbackends)
FROM pg_catalog.pg_stat_database)::integer AS used, current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer AS most, (SELECT rolconnlimit
FROM pg_catalog.pg_roles
WHERE rolname = current_user) AS of_role, (SELECT datconnlimit
FROM pg_catalog.pg_database
WHERE datname = current_database()) AS of_database;
