SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT) + (SELECT coalesce(max(smp.restore."offset"), %(coalesce_2)s::INTEGER) AS coalesce_1
FROM smp.restore) AS xact, coalesce((SELECT max(smp.transition.xact) AS max_1
FROM smp.transition) >= CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS TEXT) AS BIGINT) + (SELECT coalesce(max(smp.restore."offset"), %(coalesce_4)s::INTEGER) AS coalesce_3
FROM smp.restore), false) AS is_ahead;
