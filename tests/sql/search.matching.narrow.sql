WITH asked AS MATERIALIZED
(SELECT CAST(string_agg('''' || regexp_replace(word.lexeme, '([''\\])', '\1\1', 'g') || '''', ' | '
ORDER BY word.lexeme) AS TSQUERY) AS query
FROM unnest(to_tsvector('"smp".words'::regconfig, %(text)s::VARCHAR)) AS word(lexeme))
SELECT smp.chunk.id AS chunk_id, ts_rank(smp.chunk.words, asked.query) AS score
FROM asked
JOIN smp.chunk ON smp.chunk.words @@ asked.query
JOIN smp.document ON smp.document.id = smp.chunk.document_id
WHERE smp.document.tenant = %(tenant)s::VARCHAR AND smp.document.metadata @> %(contains)s::JSONB AND smp.document.metadata @@ CAST(%(matches)s::VARCHAR AS JSONPATH) AND smp.document.metadata @@ CAST(%(groups)s::VARCHAR AS JSONPATH) AND smp.document.id = ANY (%(documents)s::UUID[]) AND smp.chunk.metadata @> %(chunk_contains)s::JSONB AND smp.chunk.metadata @@ CAST(%(chunk_matches)s::VARCHAR AS JSONPATH)
ORDER BY ts_rank(smp.chunk.words, asked.query) DESC, smp.chunk.id
LIMIT %(limit)s::INTEGER;
