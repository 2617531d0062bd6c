"""Drives documents: claims, runs hooks outside any transaction, settles what came of them.

Knows the store's methods, never its SQL.
"""
