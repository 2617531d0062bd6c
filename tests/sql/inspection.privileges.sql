SELECT c.relname AS relation, p.privilege, has_table_privilege(r.oid, c.oid, p.privilege) AS held, pg_has_role(r.oid, c.relowner, 'USAGE') AS is_owner
FROM pg_catalog.pg_class c CROSS
JOIN pg_catalog.pg_roles r CROSS
JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS p (privilege)
WHERE c.relnamespace = to_regnamespace(%(schema)s::VARCHAR) AND c.relkind = 'r' AND r.rolname = coalesce(%(role)s::VARCHAR, current_user)
ORDER BY c.relname, p.privilege;
