SELECT smp.breaker.provider, smp.breaker.state != 'closed' AS is_down
FROM smp.breaker
ORDER BY smp.breaker.provider;
