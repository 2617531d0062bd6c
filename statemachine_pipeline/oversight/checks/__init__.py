"""What ``doctor`` looks at: a small function for each check, in modules by what they look at.

A check is given a ``Subject`` and returns a ``Verdict``. Its docstring is its entry in the
reference: first what is looked at, then what it warns of or fails for. It changes nothing, asks no
provider, and may raise: that counts as its failure, and as nobody else's.
"""
