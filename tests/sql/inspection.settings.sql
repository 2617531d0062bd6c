SELECT name, reset_val AS setting
FROM pg_catalog.pg_settings
WHERE name = ANY (%(names)s::TEXT[])
ORDER BY name;
