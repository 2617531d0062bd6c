SELECT pg_catalog.pg_stat_user_tables.relname AS name, pg_total_relation_size(pg_catalog.pg_stat_user_tables.relid) AS bytes, pg_catalog.pg_stat_user_tables.n_dead_tup AS dead_rows, pg_catalog.pg_stat_user_tables.n_live_tup AS live_rows
FROM pg_catalog.pg_stat_user_tables
WHERE pg_catalog.pg_stat_user_tables.schemaname = %(param_1)s::VARCHAR AND pg_catalog.pg_stat_user_tables.relname = ANY (%(param_2)s::TEXT[])
ORDER BY pg_catalog.pg_stat_user_tables.relname;
