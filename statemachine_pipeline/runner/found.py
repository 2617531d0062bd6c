"""Documents that a hook found in its document: whether they may be submitted, and which."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from statemachine_pipeline.hooks import Done, Reject, StageFault
from statemachine_pipeline.records import Child, ParsedText
from statemachine_pipeline.sources import BLOB_LIMIT_BYTES

if TYPE_CHECKING:
    from statemachine_pipeline.records import Document
    from statemachine_pipeline.stages import ChildLimits


def bounded(done: Done, document: Document, limits: ChildLimits) -> Done:
    """Check the children that a hook returned.

    Those that lie too deep are left out: the text gets a warning, or with another product the
    facts ``children_left_out``.

    Raises:
        Reject: They are too many or too large; codes ``too_many_children`` and
            ``child_too_large``.
        StageFault: They are no children, or what they keep is no JSON.
    """
    children = done.children
    if not children:
        return done
    for child in children:
        if not isinstance(child, Child):
            raise StageFault(f"the hook returned a {type(child).__name__} among its children")
    if document.depth >= limits.depth:
        return _without_children(done, limits)
    if len(children) > limits.count:
        raise Reject(
            f"{len(children):,} documents in it are more than the limit of {limits.count:,}",
            "too_many_children",
        )
    largest = max(len(child.data) for child in children)
    if largest > BLOB_LIMIT_BYTES:
        raise Reject(
            f"a document in it has {largest:,} bytes, more than the {BLOB_LIMIT_BYTES:,} that are "
            "stored in the database",
            "child_too_large",
        )
    total = sum(len(child.data) for child in children)
    if total > limits.size_bytes:
        raise Reject(
            f"the documents in it have {total:,} bytes together, more than the limit of "
            f"{limits.size_bytes:,}",
            "child_too_large",
        )
    for child in children:
        try:
            json.dumps(dict(child.metadata), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise StageFault(f"the metadata of a child is no JSON: {error}") from error
    return done


def _without_children(done: Done, limits: ChildLimits) -> Done:
    count = len(done.children)
    warning = (
        f"left out {count:,} document{'s' * (count > 1)} found in it: it lies {limits.depth} deep "
        "in others itself, which is the limit"
    )
    product = done.product
    if isinstance(product, ParsedText):
        product = dataclasses.replace(product, warnings=(*product.warnings, warning))
        return Done(product, **done.reported)
    return Done(product, **{**done.reported, "children_left_out": count})
