"""Prometheus metrics of the GPUs and the liveness of the agent: /metrics and /healthz.

Invariant: a scrape shows the last reading only; a value that the driver does not report has no sample, so that a gap is not
mistaken for zero. The agent is healthy if its last reading ended less than `patience` seconds ago.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from muster_agent.reading import Sample

_GAUGES: Final[tuple[tuple[str, str, Callable[[Sample], float | None]], ...]] = (
    ("utilization_ratio", "Fraction of the last sample period in which a kernel ran", lambda s: s.utilisation),
    ("memory_used_bytes", "GPU memory in use", lambda s: s.memory_used),
    ("memory_total_bytes", "Total GPU memory", lambda s: s.memory_total),
    ("temperature_celsius", "Temperature of the GPU's core", lambda s: s.temperature),
    ("power_watts", "Power drawn by the board", lambda s: s.power),
    ("healthy", "1 if the GPU is healthy, 0 if its hardware has a fault", lambda s: float(s.healthy)),
)


class Gauges(Collector):
    """The collector of a node's last samples."""

    def __init__(self, node: str, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._patience = patience
        self._clock = clock
        self._samples: Sequence[Sample] = ()
        self._last_reading = clock()
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def show(self, samples: Sequence[Sample]) -> None:
        """Replace the samples by those of a completed reading."""
        self._samples = samples
        self._last_reading = self._clock()

    def alive(self) -> bool:
        """Return whether the last reading is recent enough."""
        return self._clock() - self._last_reading < self._patience

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield one gauge for each quantity, with a sample for each GPU that reports it."""
        for name, text, value in _GAUGES:
            gauge = GaugeMetricFamily(f"muster_gpu_{name}", text, labels=["node", "gpu", "uuid"])
            for sample in self._samples:
                if (number := value(sample)) is not None:
                    gauge.add_metric([self._node, str(sample.index), sample.uuid], number)
            yield gauge


async def serve(gauges: Gauges, port: int, host: str | None = None) -> web.AppRunner:
    """Serve /metrics and /healthz on `port` (0: any free one); the caller calls `cleanup()`. Raise OSError."""
    app = web.Application()
    app[_GAUGES_KEY] = gauges
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/healthz", _healthz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


async def _metrics(request: web.Request) -> web.Response:
    text = generate_latest(request.app[_GAUGES_KEY].registry)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _healthz(request: web.Request) -> web.Response:
    if request.app[_GAUGES_KEY].alive():
        return web.Response(text="ok\n")
    return web.Response(status=503, text="no reading of the GPUs has completed for too long; the driver may hang\n")


_GAUGES_KEY: Final = web.AppKey("gauges", Gauges)
