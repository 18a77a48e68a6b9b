"""What users ask for by annotation, and the answer to what cannot be done: an Event that says what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from muster.api import names
from muster.kube.events import Reference
from muster.kube.objects import Meta
from muster_operator.reporting import Reporter

REASON = "UnknownWish"
"""The reason of an Event that answers an annotation without effect."""
MOST_QUOTED = 40
"""Characters of a user's text that an answer repeats."""
MOST_ANSWERS = 8
"""Answers to one object: annotations may be many."""


def answer(reporter: Reporter, about: Reference, before: Meta | None, after: Meta) -> None:
    """Answer the wishes that an object has now, unless it had them before."""
    if before is None or (before.uid, before.annotations) != (after.uid, after.annotations):
        for text in answers(about.kind, after):
            reporter.event(about, "Warning", REASON, text)


def answers(kind: str, meta: Meta) -> list[str]:
    """Return the answers to annotations of a DLJob or pod that muster cannot understand."""
    return list(islice(_answers(kind, meta), MOST_ANSWERS))


def _answers(kind: str, meta: Meta) -> Iterator[str]:
    suspend = meta.annotation(names.SUSPEND)
    if suspend is not None and suspend not in ("true", "false"):
        yield f"{names.SUSPEND} is {_quoted(suspend)} and has no effect: its values are true and false"
    if kind == "DLJob":
        known = names.USERS_WRITE[kind].annotations
        for key in sorted(meta.annotations or ()):
            if key.startswith(f"{names.GROUP}/") and key not in known:
                yield f"{_quoted(key)} is no annotation of a DLJob and has no effect: those of users are {' and '.join(known)}"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}…")
