DELETE FROM smp.text_owner
WHERE smp.text_owner.tenant = %(key_tenant)s::VARCHAR AND smp.text_owner.kind = %(key_kind)s::VARCHAR AND smp.text_owner.sha256 = %(key_sha256)s::VARCHAR;
