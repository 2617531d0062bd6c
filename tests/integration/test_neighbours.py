"""An application's own tables and migrations beside the pipeline's, with a real Alembic project."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from fix_pipelines import pipeline_with

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    Psql = psycopg.Connection[Any]

INI = (
    "[alembic]\nscript_location = %(here)s/migrations\nprepend_sys_path = .\npath_separator = os\n"
)
TEMPLATE = '''"""${message}"""
from alembic import op
import sqlalchemy as sa
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
'''
MODELS = """
import uuid
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from statemachine_pipeline.database.tables import tables

class Base(DeclarativeBase):
    pass

class Contract(Base):
    __tablename__ = "contract"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    document_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey(tables("smp").document.c.id))
"""
ENV = """
import os
import sqlalchemy as sa
from alembic import context
from models import Base, tables
from statemachine_pipeline.database.neighbours import leave_out

with sa.create_engine(os.environ["APP_DATABASE"]).connect() as connection:
    context.configure(connection=connection, OPTIONS)
    with context.begin_transaction():
        context.run_migrations()
"""


class Project:
    """An application's folder with Alembic in it."""

    def __init__(self, folder: Path, url: str, options: str) -> None:
        self._folder, self._url = folder, url
        self._versions = folder / "migrations" / "versions"
        self._versions.mkdir(parents=True)
        (folder / "alembic.ini").write_text(INI)
        (folder / "models.py").write_text(MODELS)
        (folder / "migrations" / "env.py").write_text(ENV.replace("OPTIONS", options))
        (folder / "migrations" / "script.py.mako").write_text(TEMPLATE)

    def alembic(self, *commands: str) -> None:
        """Run Alembic as a developer would, but in one process: starting one takes seconds."""
        done = subprocess.run(
            [sys.executable, "-c", ALEMBIC, *commands],
            cwd=self._folder,
            env=os.environ | {"APP_DATABASE": self._url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def written(self, number: str) -> str:
        """Return the text of a revision that Alembic wrote."""
        (written,) = self._versions.glob(f"{number}_*.py")
        return written.read_text()


ALEMBIC = """
import sys
from alembic.config import main
for command in sys.argv[1:]:
    main(command.split())
"""
WRITE = "revision --autogenerate -m change --rev-id "
OWN = "target_metadata=Base.metadata, "
BOTH = "target_metadata=[Base.metadata, tables('smp').metadata], "


@pytest.mark.parametrize("metadata", [OWN, BOTH], ids=["own metadata", "both"])
@pytest.mark.parametrize("options", ["", "include_schemas=True, "], ids=["one schema", "all"])
async def test_a_users_migrations_leave_the_pipelines_tables_alone(
    engine: AsyncEngine,
    psql: Psql,
    database_url: str,
    tmp_path: Path,
    options: str,
    metadata: str,
) -> None:
    """Neither dropped nor created; the foreign key is, and each side goes on by itself."""
    project = Project(tmp_path, database_url, metadata + options + "**leave_out('smp')")
    project.alembic(WRITE + "a1", "upgrade head", WRITE + "a2")
    written = project.written("a1")
    assert "create_table('contract'" in written
    assert "['smp.document.id']" in written
    assert written.count("create_table(") == 1
    assert written.count("drop_table(") == 1  # of the downgrade
    assert "smp'" not in written
    assert "pass" in project.written("a2")
    pipeline = pipeline_with(engine)
    assert "at 0001" in str(await pipeline.migrate())
    insert = sa.text("INSERT INTO public.contract (customer, document_id) VALUES ('alder', :id)")
    async with engine.begin() as connection:
        sent = await pipeline.submit(b"text", session=connection)
        await connection.execute(insert, {"id": sent.document_id})
    versions = "SELECT version_num FROM public.alembic_version"
    assert psql.execute(versions).fetchall() == [("a1",)]
    assert psql.execute("SELECT version_num FROM smp.alembic_version").fetchall() == [("0001",)]
    project.alembic("upgrade head", "downgrade base")
    assert (await pipeline.get(sent.document_id)).state == "uploaded"


def test_without_it_alembic_would_drop_them(database_url: str, tmp_path: Path) -> None:
    """What ``leave_out`` is for."""
    project = Project(tmp_path, database_url, OWN + "include_schemas=True")
    project.alembic(WRITE + "a1")
    assert "op.drop_table('document', schema='smp')" in project.written("a1")
