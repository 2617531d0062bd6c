"""Drives documents: claims, runs hooks outside any transaction, settles what came of them.

Knows the store's methods, never its SQL.
"""

from loguru import logger

# A library says nothing until its user asks for it: logger.enable("statemachine_pipeline").
logger.disable("statemachine_pipeline")
