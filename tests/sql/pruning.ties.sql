SELECT smp.document.id, (SELECT array_agg(child.id) AS array_agg_1
FROM smp.document AS child
WHERE child.parent_id = smp.document.id) AS children, (SELECT count(*) AS count_1
FROM smp.duplicate_of
WHERE smp.duplicate_of.owner = smp.document.id) AS resting, (SELECT array_agg(smp.placement.stage) AS array_agg_2
FROM smp.placement
WHERE smp.placement.document_id = smp.document.id) AS placed, EXISTS (SELECT *
FROM smp.blob
WHERE smp.blob.document_id = smp.document.id AND smp.blob.key IS NOT NULL) AS bytes_in_use, EXISTS (SELECT *
FROM smp.blob_object
WHERE smp.blob_object.content = given.content AND NOT (EXISTS (SELECT *
FROM smp.blob
WHERE smp.blob.key = smp.blob_object.key))) AS bytes_left, EXISTS (SELECT *
FROM smp.transition
WHERE smp.transition.document_id = smp.document.id AND smp.transition.xact = (SELECT max(smp.transition.xact) AS max_1
FROM smp.transition)) AS newest
FROM smp.document
JOIN json_to_recordset(CAST(%(given)s::VARCHAR AS JSON)) AS given(id UUID, content TEXT) ON smp.document.id = given.id
ORDER BY smp.document.depth DESC, smp.document.id;
