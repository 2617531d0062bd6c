SELECT coalesce(sum(anon_1.chunk_count), %(coalesce_2)s::INTEGER) AS coalesce_1
FROM (SELECT smp.document.chunk_count AS chunk_count
FROM smp.document
WHERE smp.document.tenant = %(tenant)s::VARCHAR AND smp.document.chunk_count > %(chunk_count_1)s::INTEGER
LIMIT %(most)s::INTEGER) AS anon_1;
