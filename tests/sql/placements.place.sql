WITH held AS
(SELECT smp.work.document_id AS document_id
FROM smp.work
WHERE smp.work.document_id = %(document)s::UUID AND smp.work.claim_seq = %(seq)s::BIGINT AND smp.work.lane = 'claimed'
ORDER BY smp.work.document_id
FOR NO KEY UPDATE),
placed AS
(INSERT INTO smp.placement (document_id, stage, writing_until)
SELECT held.document_id AS document_id, %(trigger)s::VARCHAR AS anon_3, %(until)s::TIMESTAMP WITH TIME ZONE AS anon_4
FROM held
ON CONFLICT (document_id, stage) DO UPDATE SET placed_at = clock_timestamp(), writing_until = excluded.writing_until
WHERE smp.placement.withdraw_at IS NULL
RETURNING smp.placement.document_id)
SELECT (SELECT count(*) > %(count_1)s::INTEGER AS anon_1
FROM held) AS held, (SELECT count(*) > %(count_2)s::INTEGER AS anon_2
FROM placed) AS placed;
