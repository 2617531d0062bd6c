SELECT current_user AS role, current_database() AS database, n.oid IS NOT NULL AS has_schema, has_database_privilege(current_database(), 'CREATE') AS may_create_schema, coalesce(has_schema_privilege(n.oid, 'CREATE'), false) AS may_create_tables, EXISTS (SELECT
FROM pg_catalog.pg_class c
WHERE c.relnamespace = n.oid AND c.relname = ANY (%(tables)s::TEXT[])) AS has_tables, ARRAY(SELECT DISTINCT pg_get_userbyid(c.relowner)::text
FROM pg_catalog.pg_class c
WHERE c.relnamespace = n.oid AND c.relname = ANY (%(tables)s::TEXT[]) AND NOT pg_has_role(c.relowner, 'USAGE')
ORDER BY 1) AS owners, EXISTS (SELECT
FROM pg_catalog.pg_extension
WHERE extname = 'vector') AS has_extension, coalesce((SELECT bool_or(NOT e.superuser OR e.trusted AND has_database_privilege(current_database(), 'CREATE'))
FROM pg_catalog.pg_available_extension_versions e
WHERE e.name = 'vector'), true) OR r.rolsuper AS may_create_extension
FROM pg_catalog.pg_roles r LEFT
JOIN pg_catalog.pg_namespace n ON n.oid = to_regnamespace(%(schema)s::VARCHAR)
WHERE r.rolname = current_user;
