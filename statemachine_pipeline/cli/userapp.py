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
    """Import the object that ``module:attribute`` names.

    Raises:
        UsageError: There is no such module or attribute, importing it failed, or it is no Pipeline.
    """
    from statemachine_pipeline.pipeline import Pipeline

    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise UsageError(f"app {name!r}: write it as module:attribute, for example app:pipeline")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UsageError(
                f"app {name!r}: no module {error.name!r} in {here} or installed"
            ) from error
        raise UsageError(f"app {name!r}: importing it failed: {error}") from error
    except Exception as error:
        kind = type(error).__name__
        raise UsageError(f"app {name!r}: importing it failed: {kind}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(f"app {name!r}: module {module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    if not isinstance(found, Pipeline):
        kind = type(found).__name__
        raise UsageError(f"app {name!r}: it is a {kind}, not a statemachine_pipeline.Pipeline")
    return found
