"""Which passages a search may see, as parameters of its statements. Pure: no I/O.

Values always travel as parameters. Plain values become containment (``@>``), operators and groups
become a jsonpath predicate (``@@``); the index on ``document.metadata`` serves both.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, get_args

from statemachine_pipeline.errors import SearchRefused
from statemachine_pipeline.records import SearchMode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from uuid import UUID

OF_CHUNKS: Final = "chunk."
"""What a name begins with when the chunk's metadata is meant, not the document's."""

MOST_HITS: Final = 1000

_COMPARISONS: Final = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_IN: Final = "$in"
_NEVER: Final = "1 == 0"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The documents and chunks that a search may return.

    Attributes:
        tenant: Whose documents.
        where: What metadata has to be; see ``Pipeline.search``.
        groups: Access lists have to name one of these; None when nobody's rights are asked for.
        documents: Only these.
    """

    tenant: str = "default"
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    groups: Collection[str] | None = None
    documents: Collection[UUID] | None = None

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the conditions there are, by their names.

        Raises:
            SearchRefused: A filter cannot be read.
        """
        if not isinstance(self.where, Mapping) or not all(isinstance(n, str) for n in self.where):
            raise SearchRefused("where", self.where, "it has to be a mapping of names to values")
        values: dict[str, Any] = {}
        for prefix, filters in (("", self._of_documents()), ("chunk_", self._of_chunks())):
            contains, paths = _read(filters)
            if contains:
                values[f"{prefix}contains"] = contains
            if paths:
                values[f"{prefix}matches"] = " && ".join(paths)
        if self.groups is not None:
            values["groups"] = _any_group(self.groups)
        if self.documents is not None:
            values["documents"] = list(self.documents)
        return values

    def _of_documents(self) -> dict[str, Any]:
        return {name: v for name, v in self.where.items() if not name.startswith(OF_CHUNKS)}

    def _of_chunks(self) -> dict[str, Any]:
        return {
            name.removeprefix(OF_CHUNKS): value
            for name, value in self.where.items()
            if name.startswith(OF_CHUNKS)
        }


def check_search(text: str, limit: int, mode: str) -> None:
    """Refuse a search that could not be meant.

    Raises:
        SearchRefused: With what is wrong.
    """
    if not text.strip():
        raise SearchRefused("the question", text, "it is nothing but white space")
    if not isinstance(limit, int) or not 1 <= limit <= MOST_HITS:
        raise SearchRefused("limit", limit, f"1 to {MOST_HITS} passages can be asked for")
    if mode not in get_args(SearchMode):
        raise SearchRefused("mode", mode, f"there are {', '.join(get_args(SearchMode))}")


def _read(filters: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what has to be contained, and the predicates of operators."""
    contains: dict[str, Any] = {}
    paths: list[str] = []
    for name, wanted in filters.items():
        if isinstance(wanted, Mapping) and any(str(key).startswith("$") for key in wanted):
            paths += (_predicate(name, operator, value) for operator, value in wanted.items())
        else:
            _json(name, wanted)
            contains[name] = wanted
    return contains, paths


def _predicate(name: str, operator: str, value: Any) -> str:
    path = f"$.{_json(name, name)}"
    if operator == _IN:
        if isinstance(value, str | Mapping) or not hasattr(value, "__iter__"):
            raise SearchRefused(f"$in of {name!r}", value, "it has to be a list")
        return _any_of(f"{path} == {_scalar(name, one)}" for one in value)
    if operator not in _COMPARISONS:
        known = ", ".join((*_COMPARISONS, _IN))
        raise SearchRefused(f"the operator of {name!r}", operator, f"there are {known}")
    return f"{path} {_COMPARISONS[operator]} {_scalar(name, value)}"


def _any_group(groups: Collection[str]) -> str:
    names = None if isinstance(groups, str) else list(groups)
    if names is None or not all(isinstance(name, str) for name in names):
        raise SearchRefused("groups", groups, "it has to be a list of names")
    # Strict: a list in the list, or a name without a list, lets nobody in.
    return "strict " + _any_of(f"$.groups[*] == {_json('groups', name)}" for name in names)


def _any_of(predicates: Iterable[str]) -> str:
    return f"({' || '.join(predicates) or _NEVER})"


def _scalar(name: str, value: Any) -> str:
    if value is not None and not isinstance(value, str | int | float):
        advice = "an operator compares with text, numbers, truth values and None; dates are text"
        raise SearchRefused(f"the value of {name!r}", value, advice)
    return _json(name, value)


def _json(name: str, value: Any) -> str:
    """Return a value as JSON, whose literals are those of jsonpath."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SearchRefused(f"the value of {name!r}", value, f"it is not JSON: {error}") from error
