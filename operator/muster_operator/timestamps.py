"""Times of the API server (UTC, whole seconds) as seconds since 1970, and back."""

from __future__ import annotations

from datetime import UTC, datetime


def stamp(time: datetime | None) -> float:
    """Return seconds since 1970, 0 for no time."""
    return time.timestamp() if time else 0.0


def moment(seconds: float) -> datetime:
    """Return the UTC time of a stamp, in whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC)
