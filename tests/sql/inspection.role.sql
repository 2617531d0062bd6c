SELECT r.rolname AS name, r.rolsuper AS is_superuser, has_schema_privilege(r.oid, n.oid, 'USAGE') AS may_look, has_schema_privilege(r.oid, n.oid, 'CREATE') AS may_create, has_sequence_privilege(r.oid, s.oid, 'USAGE') AS may_number
FROM pg_catalog.pg_roles r, pg_catalog.pg_namespace n LEFT
JOIN pg_catalog.pg_class s ON s.relnamespace = n.oid AND s.relname = %(sequence)s
WHERE r.rolname = coalesce(%(role)s::VARCHAR, current_user) AND n.oid = to_regnamespace(%(schema)s::VARCHAR);
