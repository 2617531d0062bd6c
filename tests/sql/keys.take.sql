INSERT INTO smp.text_owner (tenant, kind, sha256, document_id)
SELECT key.tenant, key.kind, key.sha256, key.document_id
FROM json_to_recordset(CAST(%(key)s::VARCHAR AS JSON)) AS key(tenant TEXT, kind TEXT, sha256 TEXT, document_id UUID)
ORDER BY key.tenant, key.kind, key.sha256
ON CONFLICT DO NOTHING;
