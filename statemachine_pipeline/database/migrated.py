"""What a migration did, as a value. Never more than that."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What ``migrate`` did, or with ``dry_run`` would do; as text it is the sentence.

    Attributes:
        schema: Whose tables.
        revision_before: Of the tables as they were found; None where there were none.
        revision: Of the tables afterwards.
        lifecycle: The class that is the current one afterwards.
        app_role: The role that was granted what work needs; None where none was named.
        created: What was not there before: schema, extension, tables, lifecycle, with their names.
        moved: Documents that left each state which the lifecycle does not know, by the state.
        said: What was done, in a sentence for people.
    """

    schema: str
    revision_before: str | None
    revision: str
    lifecycle: str
    app_role: str | None = None
    created: tuple[str, ...] = ()
    moved: Mapping[str, int] = dataclasses.field(default_factory=dict)
    said: str

    def __str__(self) -> str:
        return self.said
