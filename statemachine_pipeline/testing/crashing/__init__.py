"""A process killed at each of its steps on a real PostgreSQL, and another one that goes on."""
