"""The agent of one node: reads, publishes and measures every `interval` seconds until told to stop.

Invariant: nothing that the driver or the API server does ends it; a node without GPUs or driver idles, says so once, and
is looked at again (a driver may be installed later).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

import msgspec

from muster.api.topology import NodeTopology
from muster.kube.errors import KubeError
from muster_agent.health import Watch
from muster_agent.metrics import Gauges
from muster_agent.nvml import NoDriver, Nvml
from muster_agent.publish import Publisher
from muster_agent.reading import Sample, read_samples, read_topology

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """What one reading found."""

    topology: NodeTopology
    samples: list[Sample]


class Reader:
    """Keeps the connection to the driver between readings; `sysfs` is the directory that is /sys."""

    def __init__(self, sysfs: Path) -> None:
        self._sysfs = sysfs
        self._nvml: Nvml | None = None
        self._watch = Watch()
        self._said: str | None = None

    def read(self) -> Reading | None:
        """Read the node (this may take seconds); None where there is nothing to read, which is said once."""
        try:
            self._nvml = self._nvml or Nvml()
        except NoDriver as error:
            self._idle(str(error))
            return None
        count = self._nvml.count()
        if not count:
            self.close()  # the driver may have been unloaded: the next reading starts over
            self._idle("the driver reports no GPUs" if count == 0 else "the driver does not count its GPUs")
            return None
        self._said = None
        topology = read_topology(self._nvml, self._sysfs, self._watch.look(self._nvml, range(count)))
        return Reading(topology, read_samples(self._nvml, topology))

    def close(self) -> None:
        """Give the connection to the driver back."""
        if self._nvml is not None:
            self._nvml.close()
            self._nvml, self._watch = None, Watch()

    def _idle(self, why: str) -> None:
        if why != self._said:
            log.info("idle: %s; looking again from time to time", why)
            self._said = why


async def run_node(
    node: str, reader: Reader, publisher: Publisher, gauges: Gauges, interval: float, stop: asyncio.Event
) -> None:
    """Read, publish and measure every `interval` seconds until `stop` is set."""
    while not stop.is_set():
        reading = await asyncio.to_thread(reader.read)  # a driver in trouble can hold a call for seconds
        gauges.show(reading.samples if reading else [])
        if reading:
            await _publish(publisher, node, reading.topology)
        await wait(stop, interval)
    reader.close()


async def wait(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but not beyond `stop`."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def _publish(publisher: Publisher, node: str, topology: NodeTopology) -> None:
    try:
        await publisher.publish(node, topology)
    except (KubeError, msgspec.MsgspecError) as error:
        log.warning("node %s: its topology is not published, trying again: %s", node, error)
