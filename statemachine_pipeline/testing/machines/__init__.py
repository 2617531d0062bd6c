"""Walks through a lifecycle on a real store: every edge once, or any way with faults between."""
