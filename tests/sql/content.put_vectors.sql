WITH block AS
(SELECT CAST(%(flat)s AS REAL[]) AS flat)
INSERT INTO smp.vector_buffer (document_id, embedder_id, chunk_id, vector)
SELECT %(document)s::UUID AS anon_1, %(embedder)s::SMALLINT AS anon_2, vector.chunk_id, CAST(block.flat[(vector.place - %(place_1)s::INTEGER) * %(dimensions)s::INTEGER + %(param_1)s::INTEGER:((vector.place - %(place_1)s::INTEGER) * %(dimensions)s::INTEGER + %(param_1)s::INTEGER + %(dimensions)s::INTEGER) - %(param_2)s::INTEGER] AS VECTOR) AS anon_3
FROM json_to_recordset(CAST(%(vector)s::VARCHAR AS JSON)) AS vector(chunk_id UUID, place INTEGER)
JOIN block ON true
ON CONFLICT DO NOTHING;
