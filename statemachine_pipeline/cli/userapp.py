"""Finds and imports the user's own `Pipeline` object."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from statemachine_pipeline.cli.ending import UsageError

if TYPE_CHECKING:
    from statemachine_pipeline.pipeline import Pipeline

SETTINGS = Path("pyproject.toml")


def find_app(option: str | None) -> str | None:
    """Return ``module:attribute`` from the option, SMP_APP or ./pyproject.toml, else None.

    Raises:
        UsageError: pyproject.toml cannot be read, or names something else than text.
    """
    return option or os.environ.get("SMP_APP") or _from_settings()


def _from_settings() -> str | None:
    import tomllib

    try:
        with SETTINGS.open("rb") as file:
            tools = tomllib.load(file).get("tool", {})
    except FileNotFoundError:
        return None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{SETTINGS} cannot be read: {error}") from error
    app = tools.get("statemachine-pipeline", {}).get("app")
    if app is not None and not isinstance(app, str):
        raise UsageError(
            f"{SETTINGS}: [tool.statemachine-pipeline] app has to be text, got {app!r}"
        )
    return app


def load(name: str) -> Pipeline:
    """Import the Pipeline that ``module:attribute`` names.

    Raises:
        UsageError: It cannot be imported, or is no Pipeline.
    """
    from statemachine_pipeline.pipeline import Pipeline

    found = imported(f"app {name!r}", name)
    if not isinstance(found, Pipeline):
        kind = type(found).__name__
        raise UsageError(f"app {name!r}: it is a {kind}, not a statemachine_pipeline.Pipeline")
    return found


def imported(asked: str, name: str) -> object:
    """Import the object that ``module:attribute`` names, from the working folder too.

    Args:
        asked: Begins what is told when it cannot be.
        name: Module and attribute.

    Raises:
        UsageError: There is no such module or attribute, or importing it failed.
    """
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise UsageError(f"{asked}: write it as module:attribute, for example app:pipeline")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UsageError(f"{asked}: no module {error.name!r} in {here} or installed") from error
        raise UsageError(f"{asked}: importing it failed: {error}") from error
    except Exception as error:
        kind = type(error).__name__
        raise UsageError(f"{asked}: importing it failed: {kind}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{asked}: module {module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    return found
