"""Claims documents and drives them: the loop, the hooks' executors, the heartbeat."""
