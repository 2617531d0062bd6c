"""How a pipeline does as a whole: its health, its fleet, what is slow and what it costs.

Nothing here changes anything. Each question is a module; ``Oversight`` is where they are asked.
"""

from statemachine_pipeline.database.listings import Which

__all__ = ["Which"]
