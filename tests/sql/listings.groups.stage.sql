WITH found AS
(SELECT coalesce(smp.dead_letter.stage, served.stage) AS key
FROM smp.document
LEFT OUTER JOIN smp.dead_letter ON smp.dead_letter.document_id = smp.document.id
LEFT OUTER JOIN json_to_recordset(CAST(%(served)s::VARCHAR AS JSON)) AS served(state TEXT, stage TEXT) ON smp.document.state = served.state
WHERE (%(state)s::VARCHAR IS NULL OR smp.document.state = %(state)s::VARCHAR) AND (%(tenant)s::VARCHAR IS NULL OR smp.document.tenant = %(tenant)s::VARCHAR) AND (%(stage)s::VARCHAR IS NULL OR smp.document.state = ANY (%(states)s::TEXT[]) OR smp.dead_letter.stage = %(stage)s::VARCHAR) AND (%(code)s::VARCHAR IS NULL OR smp.dead_letter.code = %(code)s::VARCHAR) AND (CAST(%(older_than)s AS DOUBLE PRECISION) IS NULL OR smp.document.updated_at <= clock_timestamp() - CAST(%(older_than)s AS DOUBLE PRECISION) * interval '1 second') AND (%(contains)s::VARCHAR IS NULL OR strpos(lower(smp.document.name), lower(%(contains)s::VARCHAR)) > %(strpos_1)s::INTEGER OR strpos(CAST(smp.document.id AS TEXT), lower(%(contains)s::VARCHAR)) > %(strpos_2)s::INTEGER)
ORDER BY smp.document.created_at DESC, smp.document.id DESC
LIMIT %(most)s::INTEGER)
SELECT found.key, count(*) AS count
FROM found
GROUP BY found.key
ORDER BY count DESC, found.key;
