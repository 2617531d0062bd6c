"""The verbs and their options, as typer reads them; each imports its work when it is run.

In the order in which ``--help`` shows them.
"""

from statemachine_pipeline.cli.verbs import run  # noqa: I001 - the order of --help
from statemachine_pipeline.cli.verbs import operate, look, watch, oversee, move, pause, define
from statemachine_pipeline.cli.verbs.options import app

__all__ = ["app", "define", "look", "move", "operate", "oversee", "pause", "run", "watch"]
