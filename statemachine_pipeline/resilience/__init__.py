"""What keeps a fleet useful while services around it fail: breakers, budgets, batches.

Nothing here runs a hook or moves a document.
"""
