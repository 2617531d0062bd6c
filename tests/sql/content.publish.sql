DELETE FROM smp.chunk
WHERE smp.chunk.document_id = ANY (%(ids)s::UUID[]) AND NOT (EXISTS (SELECT *
FROM smp.chunk_buffer
WHERE smp.chunk_buffer.document_id = smp.chunk.document_id AND smp.chunk_buffer.id = smp.chunk.id));

INSERT INTO smp.chunk (id, document_id, index, text, start, "end", headings, page, metadata)
SELECT smp.chunk_buffer.id, smp.chunk_buffer.document_id, smp.chunk_buffer.index, smp.chunk_buffer.text, smp.chunk_buffer.start, smp.chunk_buffer."end", smp.chunk_buffer.headings, smp.chunk_buffer.page, smp.chunk_buffer.metadata
FROM smp.chunk_buffer
WHERE smp.chunk_buffer.document_id = ANY (%(ids)s::UUID[])
ORDER BY smp.chunk_buffer.id
ON CONFLICT (id) DO UPDATE SET index = excluded.index, start = excluded.start, "end" = excluded."end", headings = excluded.headings, page = excluded.page, metadata = excluded.metadata
WHERE smp.chunk.index IS DISTINCT
FROM excluded.index OR smp.chunk.start IS DISTINCT
FROM excluded.start OR smp.chunk."end" IS DISTINCT
FROM excluded."end" OR smp.chunk.headings IS DISTINCT
FROM excluded.headings OR smp.chunk.page IS DISTINCT
FROM excluded.page OR smp.chunk.metadata IS DISTINCT
FROM excluded.metadata;

DELETE FROM smp.chunk_vector USING smp.chunk
WHERE smp.chunk_vector.chunk_id = smp.chunk.id AND smp.chunk.document_id = ANY (%(ids)s::UUID[]) AND NOT (EXISTS (SELECT *
FROM smp.vector_buffer
WHERE smp.vector_buffer.document_id = smp.chunk.document_id AND smp.vector_buffer.chunk_id = smp.chunk_vector.chunk_id AND smp.vector_buffer.embedder_id = smp.chunk_vector.embedder_id));

INSERT INTO smp.chunk_vector (chunk_id, embedder_id, vector)
SELECT smp.vector_buffer.chunk_id, smp.vector_buffer.embedder_id, smp.vector_buffer.vector
FROM smp.vector_buffer
JOIN smp.chunk_buffer ON smp.chunk_buffer.document_id = smp.vector_buffer.document_id AND smp.chunk_buffer.id = smp.vector_buffer.chunk_id
WHERE smp.vector_buffer.document_id = ANY (%(ids)s::UUID[])
ORDER BY smp.vector_buffer.chunk_id
ON CONFLICT DO NOTHING;

UPDATE smp.document
SET published_sha256=(SELECT min(smp.chunk_buffer.set_sha256) AS min_1
FROM smp.chunk_buffer
WHERE smp.chunk_buffer.document_id = smp.document.id), chunk_count=(SELECT count(*) AS count_1
FROM smp.chunk
WHERE smp.chunk.document_id = smp.document.id), vector_count=(SELECT count(*) AS count_2
FROM smp.chunk_vector
JOIN smp.chunk ON smp.chunk.id = smp.chunk_vector.chunk_id
WHERE smp.chunk.document_id = smp.document.id)
WHERE smp.document.id = ANY (%(ids)s::UUID[]);

DELETE FROM smp.vector_buffer
WHERE smp.vector_buffer.document_id = ANY (%(ids)s::UUID[]);

DELETE FROM smp.chunk_buffer
WHERE smp.chunk_buffer.document_id = ANY (%(ids)s::UUID[]);
