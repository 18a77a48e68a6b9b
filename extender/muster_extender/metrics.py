"""What the extender has done, and the state of its view, as Prometheus metrics.

Requests are counted as they are answered; the state of the cluster is read from the view at a scrape, so it is never older
than the view itself. Seconds and counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from muster_extender.rules import Cluster
from muster_extender.waking import Waking

_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0)
CONTENT_TYPE = CONTENT_TYPE_LATEST
FRESH_SECONDS = 1.0


class Counts(Protocol):
    """The counters of a reflector."""

    lists: int
    watches: int
    events: int
    errors: int
    skipped: int


class Metrics:
    """One registry with everything in it."""

    def __init__(
        self,
        cluster: Cluster,
        waking: Waking,
        reflectors: Mapping[str, Counts],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now, self._made, self._text = now, float("-inf"), b""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "muster_extender_requests", "Requests of kube-scheduler by outcome", ["verb", "outcome"], registry=self.registry
        )
        self.seconds = Histogram(
            "muster_extender_request_seconds", "Time to answer", ["verb"], buckets=_BUCKETS, registry=self.registry
        )
        self.closed = Counter(
            "muster_extender_connections_closed",
            "Connections that the extender closed, by listener and reason",
            ["listener", "reason"],
            registry=self.registry,
        )
        self.registry.register(_State(cluster, waking, reflectors))

    def text(self) -> bytes:
        """Return everything in the text format of Prometheus; made at most once a second, however often it is asked for."""
        if self._now() - self._made >= FRESH_SECONDS:
            self._text, self._made = generate_latest(self.registry), self._now()
        return self._text


class _State(Collector):
    def __init__(self, cluster: Cluster, waking: Waking, reflectors: Mapping[str, Counts]) -> None:
        self._cluster, self._waking, self._reflectors = cluster, waking, reflectors

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        view = self._cluster.view
        nodes = list(view.usable().values())
        reserved = sum(reservation.gpus.bit_count() for reservation in view.reservations.values())
        yield GaugeMetricFamily("muster_extender_nodes", "Nodes that take pods", len(nodes))
        yield GaugeMetricFamily("muster_extender_gpus", "Healthy GPUs", sum(n.healthy.bit_count() for n in nodes))
        yield GaugeMetricFamily(
            "muster_extender_gpus_free", "GPUs that are neither held nor reserved", sum(n.free.bit_count() for n in nodes)
        )
        yield GaugeMetricFamily("muster_extender_gpus_reserved", "GPUs that reservations cover", reserved)
        yield GaugeMetricFamily("muster_extender_reservations", "Pods to which GPUs are reserved", len(view.reservations))
        yield GaugeMetricFamily("muster_extender_pods_refused", "Pending pods that were refused last", len(self._waking))
        yield CounterMetricFamily("muster_extender_wakes", "Pods patched so that they are tried again", self._waking.woken)
        yield CounterMetricFamily("muster_extender_wake_failures", "Such patches that failed", self._waking.failures)
        yield from self._reflected()

    def _reflected(self) -> Iterator[Metric]:
        for count in ("lists", "watches", "events", "errors", "skipped"):
            name = f"muster_extender_reflector_{count}"
            family = CounterMetricFamily(name, f"The reflectors' {count}", labels=["resource"])
            for resource, reflector in self._reflectors.items():
                family.add_metric([resource], getattr(reflector, count))
            yield family
