WITH block AS
(SELECT CAST(%(flat)s AS REAL[]) AS flat)
INSERT INTO smp.vector_buffer (document_id, embedder_id, chunk_id, vector)
SELECT vector.document_id, %(embedder)s::SMALLINT AS anon_1, vector.chunk_id, CAST(block.flat[(vector.place - %(place_1)s::INTEGER) * %(dimensions)s::INTEGER + %(param_1)s::INTEGER:((vector.place - %(place_1)s::INTEGER) * %(dimensions)s::INTEGER + %(param_1)s::INTEGER + %(dimensions)s::INTEGER) - %(param_2)s::INTEGER] AS VECTOR) AS anon_2
FROM json_to_recordset(CAST(%(vector)s::VARCHAR AS JSON)) AS vector(document_id UUID, chunk_id UUID, place INTEGER)
JOIN block ON true
ON CONFLICT DO NOTHING;
