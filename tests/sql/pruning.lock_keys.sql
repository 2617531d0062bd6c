SELECT smp.text_owner.document_id
FROM smp.text_owner
WHERE smp.text_owner.document_id = ANY (%(ids)s::UUID[])
ORDER BY smp.text_owner.tenant, smp.text_owner.kind, smp.text_owner.sha256
FOR UPDATE;
