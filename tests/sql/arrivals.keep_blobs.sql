INSERT INTO smp.blob (document_id, sha256, content)
SELECT given.ids, given.hashes, given.contents
FROM unnest(CAST(%(ids)s::UUID[] AS UUID[]), CAST(%(hashes)s::TEXT[] AS TEXT[]), CAST(%(contents)s::BYTEA[] AS BYTEA[])) AS given(ids, hashes, contents);
