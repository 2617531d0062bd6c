DELETE FROM smp.product USING json_to_recordset(CAST(%(stage)s::VARCHAR AS JSON)) AS stage(document_id UUID, stage TEXT)
WHERE smp.product.document_id = stage.document_id AND smp.product.stage = stage.stage;
