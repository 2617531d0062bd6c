SELECT EXISTS (SELECT *
FROM smp.work
WHERE smp.work.lane = 'ready' AND smp.work.alone AND smp.work.state = ANY (%(states)s::TEXT[])) AS anon_1;
