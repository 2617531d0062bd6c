SELECT smp.placement.stage, smp.placement.withdraw_at, smp.placement.last_error
FROM smp.placement
WHERE smp.placement.document_id = %(document)s::UUID AND smp.placement.withdraw_at IS NOT NULL
ORDER BY smp.placement.stage;
