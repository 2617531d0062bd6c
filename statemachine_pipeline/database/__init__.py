"""Everything that speaks SQL: tables, statements, the store, migrations, the embedded server."""
