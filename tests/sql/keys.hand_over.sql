UPDATE smp.text_owner
SET document_id=%(heir)s::UUID
WHERE smp.text_owner.tenant = %(key_tenant)s::VARCHAR AND smp.text_owner.kind = %(key_kind)s::VARCHAR AND smp.text_owner.sha256 = %(key_sha256)s::VARCHAR;

UPDATE smp.duplicate_of
SET owner=%(heir)s::UUID
WHERE smp.duplicate_of.owner = %(previous)s::UUID AND smp.duplicate_of.kind = %(key_kind)s::VARCHAR AND smp.duplicate_of.sha256 = %(key_sha256)s::VARCHAR;
