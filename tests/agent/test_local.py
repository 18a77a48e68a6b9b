"""`--local-nodes`: one process publishes for every labelled node of a cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.conftest import Nodes, until
from muster.api.topology import NodeTopology, decode
from muster.kube.client import Client
from muster.kube.errors import Forbidden
from muster.machines import machine
from muster_agent.local import LocalNodes


@asynccontextmanager
async def watching(client: Client, workdir: Path) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(LocalNodes(client, workdir).run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


def shown(nodes: Nodes, name: str) -> NodeTopology:
    return decode(nodes.annotation(name) or "")


def links(topology: NodeTopology) -> tuple[tuple[str, ...], ...]:
    return tuple(map(tuple, topology.links))


async def test_labelled_node_gets_the_topology_of_its_machine(nodes: Nodes, client: Client, tmp_path: Path) -> None:
    nodes.add("a", "p100")
    nodes.add("b", "p100")
    nodes.add("c", "dgx-h100")
    nodes.add("control-plane")
    async with watching(client, tmp_path):
        await until(lambda: len(nodes.patches) == 3 and bool(nodes.streams))
    assert links(shown(nodes, "a")) == links(shown(nodes, "b")) == machine("p100").links
    assert links(shown(nodes, "c")) == machine("dgx-h100").links
    assert {nic.name: tuple(nic.links) for nic in shown(nodes, "c").nics} == machine("dgx-h100").nics
    assert len({gpu.uuid for name in "abc" for gpu in shown(nodes, name).gpus}) == 24
    assert nodes.annotation("control-plane") is None
    assert nodes.gets == []


async def test_new_relabelled_and_recreated_nodes_are_published(nodes: Nodes, client: Client, tmp_path: Path) -> None:
    async with watching(client, tmp_path):
        await until(lambda: bool(nodes.streams))
        nodes.add("a", "c4140")
        await until(lambda: len(nodes.patches) == 1)
        first = nodes.annotation("a")
        nodes.change("a", "pcie-8")
        await until(lambda: len(nodes.patches) == 2)
        assert links(shown(nodes, "a")) == machine("pcie-8").links
        nodes.add("a", "c4140")
        await until(lambda: len(nodes.patches) == 3)
        assert nodes.annotation("a") == first, "the same node has the same GPUs"
    assert nodes.lists == 1


async def test_restart_patches_no_current_annotation(nodes: Nodes, client: Client, tmp_path: Path) -> None:
    nodes.add("a", "c4140")
    for run in ("1", "2"):
        (tmp_path / run).mkdir()
        await LocalNodes(client, tmp_path / run).sync()
    assert len(nodes.patches) == 1


async def test_unknown_machine_is_logged_once_and_affects_no_other_node(
    nodes: Nodes, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes.add("odd", "dgx-9")
    nodes.add("odder", "dgx-9")
    nodes.add("good", "c4140")
    async with watching(client, tmp_path):
        await until(lambda: len(nodes.patches) == 1 and bool(nodes.streams))
        nodes.change("odd", "dgx-9")
        nodes.change("odd", "v100")
        await until(lambda: len(nodes.patches) == 2)
    assert [name for name, _ in nodes.patches] == ["good", "odd"]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "label muster.dev/machine: 'dgx-9' is no machine type; expected one of a100-4" in warnings[0]


async def test_expired_watch_lists_again_at_once(
    nodes: Nodes, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes.expired = True
    async with watching(client, tmp_path):
        await until(lambda: bool(nodes.streams))
        nodes.add("a", "c4140")
        await until(lambda: len(nodes.patches) == 1)
    assert nodes.lists == 2
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_rejected_list_and_patch_are_retried(
    nodes: Nodes, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster_agent.local._RETRY_SECONDS", 0.01)
    nodes.refuse = 1
    nodes.add("a", "c4140")
    async with watching(client, tmp_path):
        await until(lambda: len(nodes.patches) == 1 and bool(nodes.streams))
        nodes.refuse = 1
        nodes.add("b", "c4140")
        await until(lambda: len(nodes.patches) == 2 and not nodes.refuse)
    assert nodes.lists == 3
    assert {name for name, _ in nodes.patches} == {"a", "b"}


async def test_rejected_patch_does_not_delay_other_nodes(nodes: Nodes, client: Client, tmp_path: Path) -> None:
    for name in "abc":
        nodes.add(name, "c4140")
    local = LocalNodes(client, tmp_path)
    nodes.refuse_patches = 1
    with pytest.raises(Forbidden):
        await local.sync()
    assert len(nodes.patches) == 2
    await local.sync()
    assert len(nodes.patches) == 3


async def test_deleted_node_is_not_a_failure(nodes: Nodes, client: Client, tmp_path: Path) -> None:
    nodes.add("a", "c4140")
    nodes.add("b", "c4140")
    nodes.vanished.add("a")
    await LocalNodes(client, tmp_path).sync()
    assert [name for name, _ in nodes.patches] == ["b"]
