SELECT newest.id, newest.provider, newest.state, newest.reason, newest.worker, newest.at
FROM smp.breaker
JOIN LATERAL (SELECT own.id AS id, own.provider AS provider, own.state AS state, own.reason AS reason, own.worker AS worker, own.at AS at
FROM smp.breaker_change AS own
WHERE own.provider = smp.breaker.provider
ORDER BY own.id DESC
LIMIT %(limit)s::INTEGER) AS newest ON true
ORDER BY newest.provider, newest.id DESC;
