INSERT INTO smp.duplicate_of (document_id, owner, kind, sha256)
SELECT rest.document_id, rest.owner, rest.kind, rest.sha256
FROM json_to_recordset(CAST(%(rest)s::VARCHAR AS JSON)) AS rest(document_id UUID, owner UUID, kind TEXT, sha256 TEXT)
ON CONFLICT (document_id) DO UPDATE SET owner = excluded.owner, kind = excluded.kind, sha256 = excluded.sha256;
