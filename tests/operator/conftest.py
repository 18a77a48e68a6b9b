"""The operator's desk over a small API server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from builders.office import Office, opened


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    """An office with two nodes of four GPUs."""
    async with opened() as found:
        found.node("n1")
        found.node("n2")
        yield found
