SELECT smp.embedder.id, smp.embedder.dimensions
FROM smp.embedder
WHERE smp.embedder.fingerprint = %(fingerprint)s::VARCHAR;
