SELECT smp.alembic_version.version_num
FROM smp.alembic_version;
