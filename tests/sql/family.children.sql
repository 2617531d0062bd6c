SELECT smp.document.id, smp.document.source_uri, smp.document.content_sha256
FROM smp.document
WHERE smp.document.parent_id = ANY (%(ids)s::UUID[]) AND smp.document.state != %(param_1)s::VARCHAR
ORDER BY smp.document.id;
