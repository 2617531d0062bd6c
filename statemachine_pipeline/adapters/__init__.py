"""What is shipped: parsers, chunkers, embedders, publishers and the checks around them.

Each module is imported by its full name. Optional libraries are imported where they are used, so
that importing an adapter is cheap and works without them; ``MissingExtra`` says which extra lacks.
"""
