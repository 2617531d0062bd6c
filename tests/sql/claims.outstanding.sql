SELECT count(*) AS count_1
FROM smp.work
WHERE smp.work.lane != %(lane_1)s::VARCHAR AND smp.work.state = ANY (%(states)s::TEXT[]);
