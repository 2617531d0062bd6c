SELECT coalesce(sum(anon_1.chunk_count), 0) AS coalesce_1
FROM (SELECT smp.document.chunk_count AS chunk_count
FROM smp.document
WHERE smp.document.tenant = %(tenant)s::VARCHAR AND smp.document.chunk_count > 0
LIMIT %(most)s::INTEGER) AS anon_1;
