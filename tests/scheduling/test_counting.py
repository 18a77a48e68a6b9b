from __future__ import annotations

import pytest

from muster.scheduling.counting import counted


@pytest.mark.parametrize(("count", "said"), [(0, "0 GPUs"), (1, "1 GPU"), (12, "12 GPUs")])
def test_only_one_thing_is_singular(count: int, said: str) -> None:
    assert counted(count, "GPU") == said
