SELECT pg_get_userbyid(pg_catalog.pg_class.relowner) AS owner, CURRENT_USER AS role, pg_has_role(pg_catalog.pg_class.relowner, %(pg_has_role_1)s::VARCHAR) AS is_owner
FROM pg_catalog.pg_class
WHERE pg_catalog.pg_class.oid = CAST(%(param_1)s::VARCHAR AS REGCLASS);
