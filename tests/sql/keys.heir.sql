SELECT smp.duplicate_of.document_id
FROM smp.duplicate_of
JOIN smp.document ON smp.document.id = smp.duplicate_of.document_id
WHERE smp.duplicate_of.owner = %(owner)s::UUID AND smp.duplicate_of.kind = %(kind)s::VARCHAR AND smp.duplicate_of.sha256 = %(sha256)s::VARCHAR
ORDER BY smp.duplicate_of.at, smp.duplicate_of.document_id
LIMIT %(param_1)s::INTEGER
FOR NO KEY UPDATE OF document, duplicate_of;
