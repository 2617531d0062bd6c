-- Two roles and the extension: run once, by a superuser, in the database of the pipeline, with
-- OWNER_PASSWORD and APP_PASSWORD set. `migrate --app-role pipeline_app` grants the second its rights.
\set ON_ERROR_STOP on
\getenv owner OWNER_PASSWORD
\getenv app APP_PASSWORD
CREATE ROLE pipeline_owner LOGIN PASSWORD :'owner';
CREATE ROLE pipeline_app LOGIN PASSWORD :'app';
-- For the schema, which `migrate` makes.
GRANT CREATE ON DATABASE :"DBNAME" TO pipeline_owner;
-- Which only a superuser may.
CREATE EXTENSION IF NOT EXISTS vector;
