DELETE FROM smp.placement
WHERE smp.placement.document_id = %(document)s::UUID AND smp.placement.stage = %(trigger)s::VARCHAR AND smp.placement.claim_seq = %(seq)s::BIGINT
RETURNING smp.placement.document_id;
