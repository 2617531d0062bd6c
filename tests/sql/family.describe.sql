UPDATE smp.document
SET metadata=(smp.document.metadata || CASE WHEN (smp.document.parent_id IS NULL) THEN CAST(%(given)s::JSONB AS JSONB) ELSE CAST(%(given)s::JSONB AS JSONB) - CAST('parent' AS TEXT) END)
WHERE smp.document.id = ANY (%(ids)s::UUID[]);
