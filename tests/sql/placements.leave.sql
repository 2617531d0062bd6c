UPDATE smp.placement
SET withdraw_at=clock_timestamp(), run_at=CASE WHEN (EXISTS (SELECT *
FROM smp.product
WHERE smp.product.document_id = smp.placement.document_id AND smp.product.stage = smp.placement.stage AND smp.product.at >= smp.placement.placed_at)) THEN clock_timestamp() ELSE greatest(clock_timestamp(), smp.placement.writing_until) END, attempts=%(attempts)s::INTEGER, last_error=%(last_error)s::VARCHAR
WHERE smp.placement.document_id = ANY (%(ids)s::UUID[]) AND smp.placement.withdraw_at IS NULL;

DELETE FROM smp.product
WHERE smp.product.document_id = ANY (%(ids)s::UUID[]) AND (EXISTS (SELECT *
FROM smp.placement
WHERE smp.placement.document_id = smp.product.document_id AND smp.placement.stage = smp.product.stage));
