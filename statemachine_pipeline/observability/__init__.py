"""What a pipeline tells of itself while it runs: log lines, and numbers counted in process.

Nothing here decides anything, and nothing is read back by what does.
"""
