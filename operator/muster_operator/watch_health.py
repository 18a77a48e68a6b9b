"""What the operator cannot see: a right to list was taken away, a definition is gone.

It goes on with what it saw last, and tries for ever; here it is told where people look: as an Event about the operator's own
pod, in the log, and as the metric muster_operator_blind.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Protocol

from muster.kube.events import Recorder, Reference
from muster_operator import metrics

log = logging.getLogger("muster.operator")

LOOK_SECONDS = 2.0


class Following(Protocol):
    """Whoever follows a resource, and says what keeps it from that."""

    trouble: str


def own_pod() -> Reference | None:
    """The pod that this process is in, by the environment that the chart gives it; None elsewhere."""
    name, namespace = os.environ.get("POD_NAME"), os.environ.get("POD_NAMESPACE")
    return Reference("v1", "Pod", name, namespace, os.environ.get("POD_UID", "")) if name and namespace else None


async def look(following: Mapping[str, Following], recorder: Recorder, me: Reference | None) -> None:
    """Tell of each resource when it cannot be followed any more, and when it can again, for ever."""
    told: set[str] = set()
    while True:
        for resource, each in following.items():
            blind = bool(each.trouble)
            metrics.BLIND.labels(resource).set(blind)
            if blind is (resource in told):
                continue
            told ^= {resource}
            message = f"cannot follow {resource}: {each.trouble}" if blind else f"follows {resource} again"
            log.log(logging.ERROR if blind else logging.INFO, message)
            if me is not None:
                recorder.event(me, "Warning" if blind else "Normal", "Blind" if blind else "Sees", message)
        await asyncio.sleep(LOOK_SECONDS)
