WITH held AS
(SELECT given.id AS id, set_config(%(set_config_2)s::VARCHAR, %(patience)s::VARCHAR, true) AS set_config_1
FROM json_to_recordset(CAST(%(given)s::VARCHAR AS JSON)) AS given(id UUID, seq BIGINT)
JOIN smp.work ON smp.work.document_id = given.id AND smp.work.claim_seq = given.seq AND smp.work.lane = 'claimed'
JOIN smp.document ON smp.document.id = given.id
ORDER BY given.id
FOR NO KEY UPDATE OF work, document)
UPDATE smp.work
SET tokens=greatest(smp.work.tokens, given.tokens), deadline_at=(clock_timestamp() + %(deadline)s * interval '1 second')
FROM json_to_recordset(CAST(%(given)s::VARCHAR AS JSON)) AS given(id UUID, tokens BIGINT)
WHERE smp.work.document_id = ANY (array((SELECT held.id
FROM held))) AND smp.work.document_id = given.id
RETURNING smp.work.document_id;
