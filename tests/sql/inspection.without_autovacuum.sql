SELECT relname AS relation
FROM pg_catalog.pg_class
WHERE relnamespace = to_regnamespace(%(schema)s::VARCHAR) AND relkind = 'r' AND 'autovacuum_enabled=false' = ANY (reloptions)
ORDER BY relname;
