SELECT smp.document.id, smp.document.source_uri, smp.document.content_sha256, smp.document.state
FROM smp.document
WHERE smp.document.parent_id = ANY (%(ids)s::UUID[])
ORDER BY smp.document.id;
