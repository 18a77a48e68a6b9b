"""200 gangs at once on 100 nodes, every one wholly in or wholly out at every moment."""

from __future__ import annotations

import logging
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from builders.history import History
from builders.live import Live

pytestmark = pytest.mark.cluster
log = logging.getLogger(__name__)

NODES, GANGS = 100, 200


def test_200_gangs_at_once_on_100_nodes(live: Live) -> None:
    live.add_nodes(NODES, racks=10)
    dice = random.Random(200)
    shapes = [(dice.randint(1, 4), dice.choice([1, 2, 4, 8])) for _ in range(GANGS)]
    with History(live.cluster) as history:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: live.job(f"g{i}", *shapes[i], run=1, pool=live.namespace), range(GANGS)))
        for count in range(GANGS // 4, GANGS + 1, GANGS // 4):
            history.wait(lambda now, count=count: now.phases().count("Succeeded") >= count, f"{count} gangs have run")  # type: ignore[misc]
        admitted: dict[str, float] = {}
        longest = 0.0
        for state in history.states():
            assert not state.given_twice(), f"{state.changed}: {state.given_twice()}"
            assert not state.not_whole(), state.not_whole()
            kind, name = state.changed.split("/", 1)
            phase = state.status(name).get("phase") if kind == "dljobs" else None
            if phase == "Admitted":
                admitted.setdefault(name, state.seen)
            elif phase == "Running" and name in admitted:
                longest = max(longest, state.seen - admitted.pop(name))
    for job in live.items("dljobs"):
        assert job["status"].get("requeues", 0) == job["status"].get("restarts", 0) == 0
        assert job["status"]["attempt"] == 1
    log.info("longest from a reservation to its whole gang running: %.1f s", longest)
