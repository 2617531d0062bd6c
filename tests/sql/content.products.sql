SELECT smp.product.document_id, smp.product.stage, smp.product.input_sha256, smp.product.fingerprint, smp.product.output_sha256, smp.product.kind, smp.product.key_kind, smp.product.key_sha256, smp.product.reported, smp.product.facts, smp.product.at
FROM smp.product
WHERE smp.product.document_id = ANY (%(ids)s::UUID[])
ORDER BY smp.product.at, smp.product.stage;
