"""What the kubelet says of a pod in Events alone: why a volume is not mounted, say."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from muster.kube.errors import KubeError
from muster.kube.objects import Pod, Struct, decoder
from muster_operator.api_writer import ApiWriter
from muster_operator.pod_faults import one_line
from muster_operator.reporting import Reporter

MOST_WORDS = 400
"""Characters of a warning."""
_EPOCH = datetime.fromtimestamp(0, UTC)


class Event(Struct, frozen=True):
    """What is read of an Event."""

    reason: str = ""
    message: str = ""
    last_timestamp: datetime | None = None
    event_time: datetime | None = None

    @property
    def time(self) -> datetime:
        """When it last happened."""
        return self.last_timestamp or self.event_time or _EPOCH


_decode = decoder(Event)


async def warning_about(pod: Pod, api_writer: ApiWriter, reporter: Reporter) -> str:
    """Return the newest warning about a pod, empty if there is none; Events that cannot be read are reported, and no matter."""
    try:
        return newest(await api_writer.warnings(pod.metadata))
    except KubeError as error:
        reporter.failed(f"Events about pod {pod.metadata.key}", error)
        return ""


def newest(events: Iterable[bytes | msgspec.Raw]) -> str:
    """Return the newest of some warnings on one line; empty if there is none."""
    last = max(map(_decode, events), key=lambda event: event.time, default=None)
    return one_line(f"{last.reason} {last.message}")[:MOST_WORDS] if last is not None else ""
