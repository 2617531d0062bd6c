"""One function per SQL statement: returns an expression, executes nothing.

Lock order, the same everywhere: ``work`` by document id, ``document`` by id, ``text_owner`` by key.
Predicates of partial indexes are literals: a bound parameter would lose the index under a generic
plan. Every statement's compiled text is a golden file under ``tests/sql``.

Those that every runner needs are made once for a schema: to make them anew took most of its start.
"""
