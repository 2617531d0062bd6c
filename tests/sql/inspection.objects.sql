SELECT kind, relation, name, in_force, definition
FROM (SELECT 'column' AS kind, r.relname AS relation, a.attname AS name, true AS in_force, NULL AS definition
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class r ON r.oid = a.attrelid
WHERE r.relnamespace = to_regnamespace(%(schema)s::VARCHAR) AND r.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'constraint', r.relname, c.conname, coalesce((to_jsonb(c) ->> 'conenforced')::boolean, true), pg_get_constraintdef(c.oid)
FROM pg_catalog.pg_constraint c
JOIN pg_catalog.pg_class r ON r.oid = c.conrelid
WHERE r.relnamespace = to_regnamespace(%(schema)s::VARCHAR)
UNION ALL
SELECT 'trigger', r.relname, coalesce(c.conname, g.tgname), g.tgenabled IN ('O', 'A'), NULL
FROM pg_catalog.pg_trigger g
JOIN pg_catalog.pg_class r ON r.oid = g.tgrelid LEFT
JOIN pg_catalog.pg_constraint c ON c.oid = g.tgconstraint
WHERE r.relnamespace = to_regnamespace(%(schema)s::VARCHAR)
UNION ALL
SELECT 'index', r.relname, i.relname, x.indisvalid, NULL
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_class r ON r.oid = x.indrelid
WHERE i.relnamespace = to_regnamespace(%(schema)s::VARCHAR)
UNION ALL
SELECT 'function', '', p.proname, true, p.prosrc
FROM pg_catalog.pg_proc p
WHERE p.pronamespace = to_regnamespace(%(schema)s::VARCHAR)) AS found
ORDER BY kind, relation, name;
