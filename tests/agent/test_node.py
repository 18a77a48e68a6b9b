"""The loop of one node, with a stand-in machine and the fake API server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.conftest import Install, Nodes, override, until
from muster.api.topology import decode
from muster.kube.client import Client
from muster.machines import machine
from muster_agent.metrics import Gauges
from muster_agent.node import Reader, run_node
from muster_agent.publish import Publisher


def log_count(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


@asynccontextmanager
async def running(client: Client, reader: Reader) -> AsyncIterator[Gauges]:
    """Run the loop at full speed and stop it as SIGTERM does."""
    stop, gauges = asyncio.Event(), Gauges("n1", patience=60)
    task = asyncio.create_task(run_node("n1", reader, Publisher(client), gauges, 0.001, stop))
    try:
        yield gauges
    finally:
        stop.set()
        await task


class CountingReader(Reader):
    """Counts completed readings."""

    count = 0

    def read(self):  # type: ignore[no-untyped-def]
        try:
            return super().read()
        finally:
            self.count += 1


async def test_topology_is_published_once_while_metrics_continue(
    nodes: Nodes, client: Client, install: Install, sysfs: Path
) -> None:
    install("v100-vm")
    nodes.add("n1")
    reader = CountingReader(sysfs)
    async with running(client, reader) as gauges:
        await until(lambda: reader.count >= 3)
    text = nodes.annotation("n1")
    assert text is not None
    assert tuple(map(tuple, decode(text).links)) == machine("v100-vm").links
    assert len(nodes.patches) == 1
    healthy = [family for family in gauges.collect() if family.name == "muster_gpu_healthy"]
    assert [sample.value for sample in healthy[0].samples] == [1.0] * 8


async def test_broken_gpu_is_published(nodes: Nodes, client: Client, install: Install, sysfs: Path) -> None:
    def failed(_device: Any, *counts: Any) -> int:
        counts[3]._obj.value = 1
        return 0

    library = install("c4140")
    nodes.add("n1")
    async with running(client, Reader(sysfs)):
        await until(lambda: len(nodes.patches) == 1)
        override(library, nvmlDeviceGetRemappedRows=failed)
        await until(lambda: len(nodes.patches) == 2)
    assert [gpu.healthy for gpu in decode(nodes.annotation("n1") or "").gpus] == [False] * 4


async def test_node_without_driver_idles_and_logs_once(
    nodes: Nodes, client: Client, sysfs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    nodes.add("n1")
    reader = CountingReader(sysfs)
    async with running(client, reader) as gauges:
        await until(lambda: reader.count >= 5)
        assert gauges.alive()
    assert log_count(caplog, "idle: the NVIDIA driver does not answer") == 1
    assert nodes.patches == []
    assert nodes.gets == []


async def test_node_without_gpus_idles_until_they_appear(
    nodes: Nodes, client: Client, install: Install, sysfs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    nodes.add("n1")
    library = install("c4140")
    count = library.nvmlDeviceGetCount_v2
    override(library, nvmlDeviceGetCount_v2=lambda _count: 0)
    reader = CountingReader(sysfs)
    async with running(client, reader):
        await until(lambda: reader.count >= 3)
        assert nodes.patches == []
        override(library, nvmlDeviceGetCount_v2=count)
        await until(lambda: len(nodes.patches) == 1)
    assert log_count(caplog, "idle: the driver reports no GPUs") == 1


async def test_driver_restart_keeps_the_annotation(nodes: Nodes, client: Client, install: Install, sysfs: Path) -> None:
    library = install("c4140")
    nodes.add("n1")
    inits: list[int] = []
    count = library.nvmlDeviceGetCount_v2

    def start(flags: int) -> int:
        inits.append(flags)
        return 0

    reader = CountingReader(sysfs)
    async with running(client, reader):
        await until(lambda: len(nodes.patches) == 1)
        shown = nodes.annotation("n1")
        override(library, nvmlDeviceGetCount_v2=lambda _count: 9, nvmlInitWithFlags=start)
        count_before = reader.count
        await until(lambda: reader.count >= count_before + 3)
        override(library, nvmlDeviceGetCount_v2=count)
        count_before = reader.count
        await until(lambda: reader.count >= count_before + 2)
    assert inits, "the connection to the driver is reopened"
    assert nodes.annotation("n1") == shown
    assert len(nodes.patches) == 1


async def test_rejections_of_the_api_server_are_retried(
    nodes: Nodes, client: Client, install: Install, sysfs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install("c4140")
    nodes.add("n1")
    nodes.refuse = 3
    async with running(client, Reader(sysfs)):
        await until(lambda: len(nodes.patches) == 1)
    assert log_count(caplog, "node n1: publishing its topology failed, retrying: 403") == 3
