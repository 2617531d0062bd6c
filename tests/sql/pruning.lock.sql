SELECT smp.document.id, smp.document.state, smp.document.tenant, smp.document.content_sha256
FROM smp.document
JOIN smp.transition ON smp.transition.document_id = smp.document.id AND smp.transition.version = smp.document.version
WHERE smp.document.id = ANY (%(ids)s::UUID[]) AND smp.document.state = ANY (%(states)s::TEXT[]) AND smp.transition.at <= clock_timestamp() - %(older_than)s * interval '1 second'
ORDER BY smp.document.depth, smp.document.id
FOR UPDATE OF document SKIP LOCKED;
