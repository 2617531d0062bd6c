SELECT smp.embedder.id, smp.embedder.dimensions, (SELECT vector_dims(smp.chunk_vector.vector) AS vector_dims_1
FROM smp.chunk_vector
WHERE smp.chunk_vector.embedder_id = smp.embedder.id
LIMIT %(param_1)s::INTEGER) AS found
FROM smp.embedder
WHERE smp.embedder.fingerprint = %(fingerprint)s::VARCHAR;
