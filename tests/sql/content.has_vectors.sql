SELECT count(*) >= %(least)s::INTEGER AS anon_1
FROM (SELECT %(param_1)s::INTEGER AS anon_3
FROM smp.chunk_vector
WHERE smp.chunk_vector.embedder_id = %(embedder)s::SMALLINT
LIMIT %(least)s::INTEGER) AS anon_2;
