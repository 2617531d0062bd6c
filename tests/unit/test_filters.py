"""What a search may see, as parameters: nothing that is given becomes part of a statement."""

from __future__ import annotations

from typing import Any

import pytest

from statemachine_pipeline.database.filters import Scope, check_search
from statemachine_pipeline.errors import SearchRefused


def read(where: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a filter."""
    return Scope(where=where).parameters()


def test_without_filters_nothing_but_the_tenant_is_asked() -> None:
    """A condition that is not needed is not in the statement."""
    assert Scope(tenant="theirs").parameters() == {}


def test_plain_values_are_contained() -> None:
    """A name and its value, which for lists and objects may be a part of what is stored."""
    where = {"kind": "letter", "year": 2024, "tags": ["roof"], "from": {"city": "Bern"}}
    assert read(where) == {"contains": where}


def test_operators_compare() -> None:
    """Any of ``$gt``, ``$gte``, ``$lt``, ``$lte`` and ``$in``; all of one search must hold."""
    assert read({"year": {"$gte": 2020, "$lt": 2024}, "kind": {"$in": ["a", None]}}) == {
        "matches": '$."year" >= 2020 && $."year" < 2024 && ($."kind" == "a" || $."kind" == null)'
    }


def test_an_empty_list_lets_nothing_through() -> None:
    """``$in`` of nothing, groups of nobody and no documents are never true."""
    assert read({"kind": {"$in": []}}) == {"matches": "(1 == 0)"}
    assert Scope(groups=[], documents=[]).parameters() == {
        "groups": "strict (1 == 0)",
        "documents": [],
    }


def test_a_name_may_be_the_chunks() -> None:
    """A name that begins with ``chunk.`` is looked up in the chunk's metadata."""
    assert read({"chunk.part": "annex", "chunk.level": {"$lte": 2}, "part": 1}) == {
        "contains": {"part": 1},
        "chunk_contains": {"part": "annex"},
        "chunk_matches": '$."level" <= 2',
    }


def test_quotes_stay_inside_what_they_are_part_of() -> None:
    """Names, values and groups are JSON literals, which are those of jsonpath."""
    assert read({'a"b\\': {"$in": ['x" || true', "é"]}}) == {
        "matches": r'($."a\"b\\" == "x\" || true" || $."a\"b\\" == "é")'
    }
    assert Scope(groups=['x"y', "z"]).parameters() == {
        "groups": r'strict ($.groups[*] == "x\"y" || $.groups[*] == "z")'
    }


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"a": {"$near": 1}}, "the operator of 'a': '$near'; there are $gt, $gte, $lt, $lte, $in"),
        ({"a": {"$gt": 1, "b": 2}}, "the operator of 'a': 'b'"),
        ({"a": {"$in": "text"}}, "$in of 'a': 'text'; it has to be a list"),
        ({"a": {"$in": 3}}, "it has to be a list"),
        ({"a": {"$gt": [1]}}, "the value of 'a': [1]"),
        ({"a": {"$gt": float("nan")}}, "it is not JSON"),
        ({"a": object()}, "it is not JSON"),
        ({"chunk.a": {1, 2}}, "it is not JSON"),
        ({1: "a"}, "a mapping of names"),
        (["a"], "a mapping of names"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused(where: Any, said: str) -> None:
    """A slip is told, not searched with."""
    with pytest.raises(SearchRefused) as refused:
        read(where)
    assert said in str(refused.value)


@pytest.mark.parametrize("groups", ["staff", ["staff", 7]])
def test_groups_are_names(groups: Any) -> None:
    """One name in place of a list would be read as a list of letters."""
    with pytest.raises(SearchRefused, match="it has to be a list of names"):
        Scope(groups=groups).parameters()


def test_groups_may_be_anything_that_yields_names() -> None:
    """A generator is read once, so that checking it does not use it up."""
    once = (name for name in ["z"])
    assert Scope(groups=once).parameters() == Scope(groups=["z"]).parameters()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "limit", "mode", "said"),
    [
        (" \n", 5, "text", "nothing but white space"),
        ("a", 0, "text", "1 to 1000 passages"),
        ("a", 1001, "text", "1 to 1000 passages"),
        ("a", 2.5, "text", "1 to 1000 passages"),
        ("a", 5, "fuzzy", "mode: 'fuzzy'; there are hybrid, vector, text"),
    ],
)
def test_a_search_that_cannot_be_meant_is_refused(
    text: str, limit: Any, mode: str, said: str
) -> None:
    """What was asked, and what can be."""
    with pytest.raises(SearchRefused) as refused:
        check_search(text, limit, mode)
    assert said in str(refused.value)
