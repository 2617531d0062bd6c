WITH found AS MATERIALIZED
(SELECT smp.chunk_vector.chunk_id AS chunk_id, CAST(smp.chunk_vector.vector AS VECTOR(256)) <=> CAST(%(question)s::DOUBLE PRECISION[] AS VECTOR(256)) AS distance
FROM smp.chunk_vector
JOIN smp.chunk ON smp.chunk.id = smp.chunk_vector.chunk_id
JOIN smp.document ON smp.document.id = smp.chunk.document_id
WHERE smp.chunk_vector.embedder_id = 1 AND smp.document.tenant = %(tenant)s::VARCHAR AND smp.document.metadata @> %(contains)s::JSONB AND smp.document.metadata @@ CAST(%(matches)s::VARCHAR AS JSONPATH) AND smp.document.metadata @@ CAST(%(groups)s::VARCHAR AS JSONPATH) AND smp.document.id = ANY (%(documents)s::UUID[]) AND smp.chunk.metadata @> %(chunk_contains)s::JSONB AND smp.chunk.metadata @@ CAST(%(chunk_matches)s::VARCHAR AS JSONPATH)
ORDER BY CAST(smp.chunk_vector.vector AS VECTOR(256)) <=> CAST(%(question)s::DOUBLE PRECISION[] AS VECTOR(256))
LIMIT %(limit)s::INTEGER)
SELECT found.chunk_id, 1 - found.distance AS score
FROM found
ORDER BY found.distance, found.chunk_id;
