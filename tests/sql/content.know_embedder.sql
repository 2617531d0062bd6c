INSERT INTO smp.embedder (fingerprint, dimensions)
VALUES (%(fingerprint)s::VARCHAR, %(dimensions)s::INTEGER)
ON CONFLICT (fingerprint) DO NOTHING
RETURNING smp.embedder.id;
