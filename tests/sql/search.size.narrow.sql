SELECT coalesce(sum(anon_1.chunk_count), 0) AS coalesce_1
FROM (SELECT smp.document.chunk_count AS chunk_count
FROM smp.document
WHERE smp.document.tenant = %(tenant)s::VARCHAR AND smp.document.metadata @> %(contains)s::JSONB AND smp.document.metadata @@ CAST(%(matches)s::VARCHAR AS JSONPATH) AND smp.document.metadata @@ CAST(%(groups)s::VARCHAR AS JSONPATH) AND smp.document.id = ANY (%(documents)s::UUID[]) AND smp.document.chunk_count > 0
LIMIT %(most)s::INTEGER) AS anon_1;
