-- The role for daily work. It logs in and may do nothing yet: `migrate --app-role` grants its rights.
--
-- In a database that is there already, run it once with psql, APP_PASSWORD being set.
\getenv password APP_PASSWORD
CREATE ROLE pipeline_app LOGIN PASSWORD :'password';
