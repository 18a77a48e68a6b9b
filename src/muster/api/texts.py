"""Numbers and times in annotations. Anybody can write these, so any text is something: what is none of them is None."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

LONGEST_TIME: Final = 40
"""Characters of a time with nanoseconds and an offset, and a few more."""
_TIME: Final = re.compile(r"[12][0-9]{3}-[0-9T:.+Z-]*", re.ASCII)


def number(text: str | None, digits: int) -> int | None:
    """Return the whole number that a text of at most so many ASCII digits is."""
    return int(text) if text and len(text) <= digits and text.isascii() and text.isdigit() else None


def time(text: str | None) -> float | None:
    """Return the seconds since 1970 of an RFC 3339 time between the years 1000 and 2999; UTC where it names no offset."""
    if not text or len(text) > LONGEST_TIME or not _TIME.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
