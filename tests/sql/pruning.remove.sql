DELETE FROM smp.document
WHERE smp.document.id = ANY (%(ids)s::UUID[]);

DELETE FROM smp.transition
WHERE smp.transition.document_id = ANY (%(ids)s::UUID[]);
