SELECT smp.document.id, smp.product.reported, smp.product.facts, smp.product.key_kind, smp.text_owner.document_id AS owner
FROM smp.document
JOIN smp.product ON smp.product.document_id = smp.document.id
JOIN smp.transition ON smp.transition.document_id = smp.document.id AND smp.transition.life = smp.document.life AND smp.transition.trigger = smp.product.stage
LEFT OUTER JOIN smp.text_owner ON smp.text_owner.tenant = smp.document.tenant AND smp.text_owner.kind = smp.product.key_kind AND smp.text_owner.sha256 = smp.product.key_sha256 AND smp.text_owner.document_id != smp.document.id
WHERE smp.document.id = ANY (%(ids)s::UUID[])
ORDER BY smp.document.id, smp.transition.version;
