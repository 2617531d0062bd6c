"""Messages say what was asked, what was found and what to do."""

from __future__ import annotations

from uuid import UUID

import pytest

from statemachine_pipeline import errors
from statemachine_pipeline.errors import (
    BlobsRefused,
    BlobsUnavailable,
    DatabaseUnavailable,
    DatabaseUnusable,
    DefinitionError,
    DocumentNotFound,
    EmbeddedServerError,
    EmbedderMismatch,
    HistoryAhead,
    LifecycleMismatch,
    LifecycleRetired,
    MissingExtra,
    NotHeard,
    PauseRefused,
    PipelineError,
    PoolerInTheWay,
    PruneRefused,
    QuestionNotEmbedded,
    RightsMissing,
    RoleRefused,
    SchemaAhead,
    SchemaMissing,
    SearchRefused,
    SourceRefused,
    StaleClaim,
    StatesUnmapped,
    TransitionRefused,
)

ID = UUID("5d2f5b0e-5f0a-5c55-9a36-3f1d9f1d2a01")

SENTENCES = [
    (DefinitionError("L.go: wrong"), "L.go: wrong"),
    (
        SourceRefused("/tmp/x", "there is no such file", "check the path"),
        "cannot take '/tmp/x': there is no such file; check the path",
    ),
    (
        TransitionRefused("complete", "cancel", "wrong_state", ("revise", "delete")),
        "'cancel' refused in state 'complete' (wrong_state); possible here: delete, revise",
    ),
    (
        TransitionRefused("nowhere", "go", "unknown_trigger", ()),
        "'go' refused in state 'nowhere' (unknown_trigger); possible here: nothing",
    ),
    (
        StaleClaim(ID, "finish_parse", 41),
        (
            f"claim 41 on document {ID} at 'finish_parse' is no longer held; its work was dropped "
            "and whoever holds the document now goes on"
        ),
    ),
    (
        DocumentNotFound(ID),
        f"no document {ID} in this pipeline; `list` shows those there are",
    ),
    (
        SearchRefused("limit", 0, "1 to 1000 passages can be asked for"),
        "search cannot use limit: 0; 1 to 1000 passages can be asked for",
    ),
    (
        PauseRefused("no stage 'parse'", "there are finish_parse, finalize"),
        "cannot pause or resume: no stage 'parse'; there are finish_parse, finalize",
    ),
    (
        PruneRefused("documents in 'cut' are on their way", "prune takes those in cancelled"),
        "cannot prune: documents in 'cut' are on their way; prune takes those in cancelled",
    ),
    (
        SchemaMissing("smp", "revision none"),
        "schema 'smp' is not ready: revision none; run `statemachine-pipeline migrate`",
    ),
    (
        SchemaAhead("smp", "0009", "0001"),
        (
            "schema 'smp' is at revision 0009, and this version knows none after 0001: a newer one "
            "migrated it; upgrade this program"
        ),
    ),
    (DatabaseUnusable("it is away", "wait"), "it is away; wait"),
    (
        LifecycleMismatch("Short", ["only in the code: a>go>b", "only in the database: a>go>c"]),
        (
            "lifecycle 'Short' differs from the one in the database (only in the code: a>go>b; "
            "only in the database: a>go>c); run `statemachine-pipeline migrate` with this "
            "lifecycle, or use another schema"
        ),
    ),
    (
        LifecycleRetired("Old", "New", {"parsed": "read", "cut": "split"}),
        (
            "lifecycle 'Old' was retired when the database was migrated to 'New' ('parsed' became "
            "'read', 'cut' became 'split'); run the newer code, or go back by "
            "`statemachine-pipeline migrate` with this lifecycle"
        ),
    ),
    (
        StatesUnmapped("New", {"cut": 1, "parsed": 1200}),
        (
            "lifecycle 'New' does not know the states of documents (1 in 'cut', 1,200 in "
            "'parsed'); say which succeed them, `statemachine-pipeline migrate --map cut=NEW --map "
            "parsed=NEW`, or bring the documents to other states with the code that knows these"
        ),
    ),
    (
        DatabaseUnavailable("claiming", "connection refused"),
        "the database did not answer while claiming: connection refused",
    ),
    (
        DatabaseUnavailable("claiming", "no such role", answer="let nobody in", fix="name another"),
        "the database let nobody in while claiming: no such role; name another",
    ),
    (
        HistoryAhead("smp"),
        (
            "history in schema 'smp' is numbered beyond this server's transactions, as after "
            "restoring a dump of another; run `statemachine-pipeline migrate`, which sets it right"
        ),
    ),
    (
        BlobsUnavailable("reading bytes", "connection refused"),
        "the object store did not answer while reading bytes: connection refused",
    ),
    (
        BlobsRefused("to store bytes", "no such bucket"),
        (
            "the object store refused to store bytes: no such bucket; check `blobs=`, its "
            "credentials and rights"
        ),
    ),
    (
        MissingExtra("pypdfium2", "documents"),
        "pypdfium2 is not installed; pip install 'statemachine-pipeline[documents]'",
    ),
    (EmbeddedServerError("it did not start"), "it did not start"),
    (
        RoleRefused("app", "there is none of this name", "CREATE ROLE it first"),
        "cannot prepare role 'app': there is none of this name; CREATE ROLE it first",
    ),
    (
        RightsMissing("migrate", "app", "the tables belong to 'owner'", "connect as that role"),
        "role 'app' cannot migrate: the tables belong to 'owner'; connect as that role",
    ),
    (
        EmbedderMismatch("mine#1", 256, 384),
        (
            "embedder 'mine#1' has 384 dimensions, but its vectors in the database have 256; give "
            "its stage another version, Stage(..., version=...), and `reprocess` embeds the "
            "documents anew"
        ),
    ),
    (
        QuestionNotEmbedded("mine#1", "its vector is zero or not finite"),
        "the question could not be embedded by 'mine#1': its vector is zero or not finite",
    ),
    (
        NotHeard("smp.work"),
        (
            "notifications on 'smp.work' do not arrive; a pooler in transaction mode takes LISTEN "
            "and delivers nothing, and so may a connection that is dead"
        ),
    ),
    (
        PoolerInTheWay("claiming", 'prepared statement "_pg3_0" does not exist'),
        (
            'a prepared statement got lost while claiming: prepared statement "_pg3_0" does not '
            "exist; behind a pooler in transaction mode turn them off by "
            "`?prepare_threshold=none` in the URL, or by "
            "connect_args={'prepare_threshold': None} of your engine"
        ),
    ),
]


@pytest.mark.parametrize(
    ("error", "sentence"), SENTENCES, ids=[type(error).__name__ for error, _ in SENTENCES]
)
def test_an_error_says_what_was_asked_found_and_to_do(error: Exception, sentence: str) -> None:
    """'A message says what was asked, what was found and what to do'."""
    assert str(error) == sentence


def test_every_error_is_a_pipeline_error_and_compared_here() -> None:
    """'Every exception raised on purpose, in one tree'."""
    tree = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert all(issubclass(error, PipelineError) for error in tree)
    assert tree - {PipelineError} == {type(error) for error, _ in SENTENCES}


def test_an_error_keeps_the_values_it_was_built_from() -> None:
    """'Constructors take values and build the sentence', and callers can read the values."""
    refused = TransitionRefused("complete", "cancel", "wrong_state", ("delete",))
    assert (refused.state, refused.trigger, refused.reason) == ("complete", "cancel", "wrong_state")
    stale = StaleClaim(ID, "finish_parse", 41)
    assert (stale.document_id, stale.stage, stale.sequence) == (ID, "finish_parse", 41)
    assert SourceRefused("x", "f", "a").source == "x"
    assert DocumentNotFound(ID).document_id == ID
    assert SchemaMissing("smp", "old").schema == "smp"
    assert LifecycleMismatch("L", iter(["one", "two"])).difference == ("one", "two")
