SELECT smp.text_owner.tenant, smp.text_owner.kind, smp.text_owner.sha256, smp.text_owner.document_id
FROM smp.text_owner
JOIN json_to_recordset(CAST(%(key)s::VARCHAR AS JSON)) AS key(tenant TEXT, kind TEXT, sha256 TEXT, document_id UUID) ON smp.text_owner.tenant = key.tenant AND smp.text_owner.kind = key.kind AND smp.text_owner.sha256 = key.sha256
ORDER BY smp.text_owner.tenant, smp.text_owner.kind, smp.text_owner.sha256;
