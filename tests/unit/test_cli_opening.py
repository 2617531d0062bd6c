"""Whose pipeline and which database: option, variables, pyproject.toml, and slips in them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.engine import make_url

from statemachine_pipeline.cli import opening, userapp
from statemachine_pipeline.cli.ending import UsageError
from statemachine_pipeline.cli.opening import Target
from statemachine_pipeline.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = ("SMP_DATABASE", "SMP_APP", "SMP_SCHEMA", "SMP_BLOBS", "DATABASE_URL")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder, with none of our variables set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_app_is_the_option_else_the_variable_else_pyproject(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--app wins over SMP_APP, which wins over [tool.statemachine-pipeline]."""
    assert userapp.find_app(None) is None
    (here / "pyproject.toml").write_text('[tool.statemachine-pipeline]\napp = "a:file"\n')
    assert userapp.find_app(None) == "a:file"
    monkeypatch.setenv("SMP_APP", "a:variable")
    assert userapp.find_app(None) == "a:variable"
    assert userapp.find_app("a:option") == "a:option"


@pytest.mark.parametrize("text", ["not [ toml", "[tool.statemachine-pipeline]\napp = 3\n"])
def test_a_damaged_pyproject_is_named(here: Path, text: str) -> None:
    """Settings that cannot be read are an error, never a silent default."""
    (here / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError, match=r"pyproject\.toml"):
        userapp.find_app(None)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("smp_app_one", "module:attribute"),
        ("smp_app_none:pipeline", "no module 'smp_app_none'"),
        ("smp_app_one:missing", "has no 'missing'"),
        ("smp_app_one:number", "it is a int"),
        ("smp_app_two:pipeline", "ZeroDivisionError"),
        ("smp_app_three:pipeline", "No module named 'smp_app_lost'"),
    ],
)
def test_an_app_that_cannot_be_used_says_why(here: Path, name: str, told: str) -> None:
    """A missing module, a missing name, another type and a broken module are told apart."""
    (here / "smp_app_one.py").write_text("number = 3\n")
    (here / "smp_app_two.py").write_text("1 / 0\n")
    (here / "smp_app_three.py").write_text("import smp_app_lost\n")
    with pytest.raises(UsageError, match=told):
        userapp.load(name)


def test_an_app_in_the_working_folder_is_found(here: Path) -> None:
    """The working folder is importable, and the object is the app's own."""
    (here / "smp_app_good.py").write_text(
        "from statemachine_pipeline import Pipeline\npipeline = Pipeline(schema='mine')\n"
    )
    assert userapp.load("smp_app_good:pipeline").schema == "mine"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_urls_made_for_other_drivers_are_understood(scheme: str) -> None:
    """DATABASE_URL is shared with other libraries, so the driver it names does not matter."""
    url = opening._url(f"{scheme}://me:secret@host:5433/name?sslmode=require")
    assert url == "postgresql+psycopg://me:secret@host:5433/name?sslmode=require"


@pytest.mark.parametrize("url", ["mysql://me:secret@host/name", "host=a password=secret", "", "x"])
def test_other_urls_are_refused_without_repeating_them(url: str) -> None:
    """A URL that cannot be used is not quoted: it may hold a password."""
    with pytest.raises(UsageError) as refused:
        opening._url(url)
    assert "secret" not in str(refused.value)


def test_a_database_is_shown_without_secrets() -> None:
    """Host, port and name tell databases apart; user, password and options stay out."""
    url = make_url("postgresql+psycopg://me:secret@host:5433/name?password=secret")
    assert opening._shown(url) == "name on host:5433"


def test_our_own_variables_are_explicit(monkeypatch: pytest.MonkeyPatch) -> None:
    """SMP_DATABASE counts like --database; DATABASE_URL is not meant for an app's pipeline."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://platform/everybody")
    assert Target().explicit_database is None
    monkeypatch.setenv("SMP_DATABASE", "postgresql://ours/documents")
    assert Target().explicit_database == "postgresql://ours/documents"
    assert Target(database="embedded").explicit_database == "embedded"


def test_the_store_is_the_option_else_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """--blobs wins over SMP_BLOBS; neither leaves the app's."""
    assert Target().explicit_blobs is None
    monkeypatch.setenv("SMP_BLOBS", "s3://ours/documents")
    assert Target().explicit_blobs == "s3://ours/documents"
    assert Target(blobs="s3://mine/x").explicit_blobs == "s3://mine/x"


def test_a_pipeline_moves_to_another_database_with_all_it_declares(here: Path) -> None:
    """`at` keeps lifecycle and hooks, and schema and store unless another is named."""
    own = Pipeline(schema="mine", blobs=here.as_uri())
    moved = own.at("postgresql://host/name")
    assert (own.is_embedded, moved.is_embedded) == (True, False)
    assert (moved.schema, moved.graph) == ("mine", own.graph)
    assert own.at(schema="other").schema == "other"
    assert moved._blobs is own._blobs
    assert own.at(blobs=(here / "other").as_uri())._blobs is not own._blobs
