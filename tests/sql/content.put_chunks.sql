INSERT INTO smp.chunk_buffer (document_id, set_sha256, id, index, text, start, "end", headings, page, metadata)
SELECT passage.document_id, passage.set_sha256, passage.id, passage.index, passage.text, passage.start, passage."end", passage.headings, passage.page, passage.metadata
FROM json_to_recordset(CAST(%(passage)s::VARCHAR AS JSON)) AS passage(document_id UUID, set_sha256 TEXT, id UUID, index INTEGER, text TEXT, start INTEGER, "end" INTEGER, headings JSONB, page INTEGER, metadata JSONB)
ON CONFLICT DO NOTHING;
