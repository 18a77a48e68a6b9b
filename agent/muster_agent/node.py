"""The agent of one node: reads, publishes and measures every `interval` seconds until stopped.

Invariant: no failure of the driver or the API server ends it. On a node without GPUs or driver it idles, logs that once, and
retries, since a driver may be installed later.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

import msgspec

from muster.api.topology import NodeTopology
from muster.kube.errors import KubeError
from muster_agent.health import HealthMonitor
from muster_agent.metrics import Gauges
from muster_agent.nvml import NoDriver, Nvml
from muster_agent.publish import Publisher
from muster_agent.reading import Sample, read_samples, read_topology

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """The result of one reading."""

    topology: NodeTopology
    samples: list[Sample]


class Reader:
    """Reads the node and keeps the driver connection between readings; `sysfs` is the path of /sys."""

    def __init__(self, sysfs: Path) -> None:
        self._sysfs = sysfs
        self._nvml: Nvml | None = None
        self._health = HealthMonitor()
        self._idle_reason: str | None = None

    def read(self) -> Reading | None:
        """Read the node, which may take seconds; return None if there is no driver or GPU, and log that once."""
        try:
            self._nvml = self._nvml or Nvml()
        except NoDriver as error:
            self._log_idle(str(error))
            return None
        count = self._nvml.count()
        if not count:
            self.close()  # the driver may have been unloaded: the next reading connects again
            self._log_idle("the driver reports no GPUs" if count == 0 else "the driver does not count its GPUs")
            return None
        self._idle_reason = None
        topology = read_topology(self._nvml, self._sysfs, self._health.check(self._nvml, range(count)))
        return Reading(topology, read_samples(self._nvml, topology))

    def close(self) -> None:
        """Close the connection to the driver."""
        if self._nvml is not None:
            self._nvml.close()
            self._nvml, self._health = None, HealthMonitor()

    def _log_idle(self, reason: str) -> None:
        if reason != self._idle_reason:
            log.info("idle: %s; retrying at every interval", reason)
            self._idle_reason = reason


async def run_node(
    node: str, reader: Reader, publisher: Publisher, gauges: Gauges, interval: float, stop: asyncio.Event
) -> None:
    """Read, publish and measure every `interval` seconds until `stop` is set."""
    while not stop.is_set():
        reading = await asyncio.to_thread(reader.read)  # a failing driver can block a call for seconds
        gauges.show(reading.samples if reading else [])
        if reading:
            await _publish(publisher, node, reading.topology)
        await wait(stop, interval)
    reader.close()


async def wait(stop: asyncio.Event, seconds: float) -> None:
    """Sleep until `seconds` have passed or `stop` is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def _publish(publisher: Publisher, node: str, topology: NodeTopology) -> None:
    try:
        await publisher.publish(node, topology)
    except (KubeError, msgspec.MsgspecError) as error:
        log.warning("node %s: publishing its topology failed, retrying: %s", node, error)
