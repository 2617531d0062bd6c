UPDATE smp.work
SET lane=CASE WHEN (%(lane)s::VARCHAR = %(param_1)s::VARCHAR AND %(run_at)s::TIMESTAMP WITH TIME ZONE > clock_timestamp()) THEN %(param_2)s::VARCHAR ELSE %(lane)s::VARCHAR END, priority=%(priority)s::SMALLINT, run_at=coalesce(%(run_at)s::TIMESTAMP WITH TIME ZONE, clock_timestamp())
WHERE smp.work.document_id = %(document)s::UUID;
