SELECT smp.parsed_document.text, smp.parsed_document.spans, smp.parsed_document.warnings
FROM smp.parsed_document
WHERE smp.parsed_document.document_id = %(document)s::UUID;
