SELECT smp.text_owner.tenant, smp.text_owner.kind, smp.text_owner.sha256, smp.text_owner.document_id
FROM smp.text_owner
JOIN smp.document ON smp.document.id = smp.text_owner.document_id
WHERE smp.text_owner.document_id = ANY (%(ids)s::UUID[]) AND (smp.document.state = ANY (%(ended)s::TEXT[]) OR NOT CASE WHEN (smp.text_owner.kind = %(kind_1)s::VARCHAR) THEN smp.text_owner.sha256 = smp.document.content_sha256 ELSE smp.text_owner.sha256 = coalesce(smp.document.text_sha256, smp.text_owner.sha256) END)
ORDER BY smp.text_owner.tenant, smp.text_owner.kind, smp.text_owner.sha256
FOR UPDATE OF text_owner;
