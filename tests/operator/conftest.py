"""The operator over a small API server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from builders.operator_harness import OperatorHarness, opened
from muster.kube import depth

depth.allow()  # as a client does: within an example, hypothesis takes that for a fault


@pytest.fixture
async def harness() -> AsyncIterator[OperatorHarness]:
    """An operator harness with two nodes of four GPUs."""
    async with opened() as found:
        found.node("n1")
        found.node("n2")
        yield found
