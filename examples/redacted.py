"""A lifecycle of one's own: a stage between validation and chunking blacks out personal data.

Shows a new ``Lifecycle`` with the state ``pii_redacted``, a guard that reads what the hook
reported, and a hook whose product replaces the unredacted text. Everything else (retry, fail,
cancel, the restarts, the shipped hooks for the other triggers) comes without a word. Run it by the
command line from this folder:

    statemachine-pipeline --app redacted:pipeline ingest documents
    statemachine-pipeline --app redacted:pipeline graph

The patterns are an example, not a promise to find all personal data.
"""

import re

from statemachine_pipeline import (
    Claim,
    Done,
    Facts,
    Lifecycle,
    Pipeline,
    State,
    all_chunks_stored,
    all_embeddings_stored,
    has_text,
    is_duplicate,
    is_unique,
)

BLACKED_OUT = {
    "[e-mail]": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    # Two letters, two digits, then groups of four: the printed form of an IBAN.
    "[account]": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
    # Seven to nineteen digits, blanks and marks that are no date: rather too much than too little.
    "[telephone]": re.compile(r"(?<![\w-])(?!\d{4}-\d\d-\d\d)[+(]?\d[\d ()/-]{5,17}\d(?![\w-])"),
}
SUSPICIOUS = re.compile(r"\w@\w|(?:\d[ -]?){12,}")


def is_clean(facts: Facts) -> bool:
    """Nothing that looks like personal data is left."""
    return facts.reported.get("findings_left") == 0


class RedactedLifecycle(Lifecycle):
    """Documents whose addresses and numbers are blacked out before they are cut up."""

    uploaded = State(initial=True)
    parse_queued, parse_complete, parse_validated = State(), State(), State()
    pii_redacted, chunks_stored = State(), State()
    embedding_queued, embedding_in_progress, embeddings_stored = State(), State(), State()
    complete, duplicate = State(final=True), State(final=True)

    queue_parse = uploaded.to(parse_queued)
    finish_parse = parse_queued.to(parse_complete)
    mark_duplicate = parse_complete.to(duplicate, cond=is_duplicate)
    accept_parse = parse_complete.to(parse_validated, cond=[has_text, is_unique])
    redact = parse_validated.to(pii_redacted, cond=is_clean)
    store_chunks = pii_redacted.to(chunks_stored, cond=all_chunks_stored)
    queue_embedding = chunks_stored.to(embedding_queued)
    start_embedding = embedding_queued.to(embedding_in_progress)
    store_embeddings = embedding_in_progress.to(embeddings_stored, cond=all_embeddings_stored)
    finalize = embeddings_stored.to(complete)


def scrub(text: str) -> tuple[str, int]:
    """Black out what the patterns find; return the text and how much still looks suspicious."""
    for label, pattern in BLACKED_OUT.items():
        text = pattern.sub(label, text)
    return text, len(SUSPICIOUS.findall(text))


async def redact(claim: Claim) -> Done:
    """Replace the parsed text by its scrubbed form, and report what was left."""
    parsed = await claim.text()
    clean, left = scrub(parsed.text)
    return Done(parsed.replace(text=clean), findings_left=left)


pipeline = Pipeline("embedded", lifecycle=RedactedLifecycle, hooks={"redact": redact})
