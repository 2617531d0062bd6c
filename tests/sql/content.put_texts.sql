INSERT INTO smp.parsed_document (document_id, generation, fingerprint, sha256, text, spans, warnings)
SELECT text.document_id, text.generation, text.fingerprint, text.sha256, text.text, text.spans, text.warnings
FROM json_to_recordset(CAST(%(text)s::VARCHAR AS JSON)) AS text(document_id UUID, generation INTEGER, fingerprint TEXT, sha256 TEXT, text TEXT, spans JSONB, warnings JSONB)
ON CONFLICT (document_id) DO UPDATE SET generation = excluded.generation, fingerprint = excluded.fingerprint, sha256 = excluded.sha256, text = excluded.text, spans = excluded.spans, warnings = excluded.warnings
WHERE smp.parsed_document.sha256 != excluded.sha256 OR smp.parsed_document.generation != excluded.generation OR smp.parsed_document.fingerprint != excluded.fingerprint;
