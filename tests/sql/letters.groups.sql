WITH matching AS MATERIALIZED
(SELECT smp.dead_letter.document_id AS document_id, smp.dead_letter.stage AS stage, smp.dead_letter.state AS state, smp.dead_letter.code AS code, smp.dead_letter.reason AS reason, smp.dead_letter.attempts AS attempts, smp.dead_letter.crashes AS crashes, smp.dead_letter.error_type AS error_type, smp.dead_letter.traceback AS traceback, smp.dead_letter.at AS at
FROM smp.dead_letter
JOIN smp.document ON smp.document.id = smp.dead_letter.document_id
WHERE (%(stage)s::VARCHAR IS NULL OR smp.dead_letter.stage = %(stage)s::VARCHAR) AND (%(code)s::VARCHAR IS NULL OR smp.dead_letter.code = %(code)s::VARCHAR) AND (%(tenant)s::VARCHAR IS NULL OR smp.document.tenant = %(tenant)s::VARCHAR) AND (%(since)s::TIMESTAMP WITH TIME ZONE IS NULL OR smp.dead_letter.at >= %(since)s::TIMESTAMP WITH TIME ZONE)),
counted AS
(SELECT matching.stage AS stage, matching.code AS code, count(*) AS count, min(matching.at) AS first_at, max(matching.at) AS last_at
FROM matching
GROUP BY matching.stage, matching.code),
newest AS
(SELECT DISTINCT ON (matching.stage, matching.code) matching.stage AS stage, matching.code AS code, matching.document_id AS document_id, matching.reason AS reason
FROM matching
ORDER BY matching.stage, matching.code, matching.at DESC, matching.document_id)
SELECT counted.stage, counted.code, counted.count, counted.first_at, counted.last_at, newest.document_id AS example, newest.reason
FROM counted
JOIN newest ON newest.stage = counted.stage AND newest.code = counted.code
ORDER BY counted.count DESC, counted.stage, counted.code;
