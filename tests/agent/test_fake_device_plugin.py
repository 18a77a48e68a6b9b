"""The fake device plugin from the kubelet's view: encoded messages, and a socket if grpcio is installed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pynvml
import pytest

from agent.conftest import Nodes, until
from muster.kube.client import Client
from muster.machines import machine
from muster_agent import device_plugin_wire as wire
from muster_agent.nvml import Nvml
from muster_agent.reading import read_topology
from muster_agent.standin import labelled
from muster_agent.standin.hardware import lay_out


def test_messages_match_the_device_plugin_api() -> None:
    # Encoded by hand from api.proto: field 1 is 0x0a, field 2 0x12, field 3 0x1a, each with a length.
    assert wire.registration("s", "nvidia.com/gpu") == b"\x0a\x07v1beta1\x12\x01s\x1a\x0envidia.com/gpu"
    assert wire.devices(["a", "bc"]) == b"\x0a\x0c\x0a\x01a\x12\x07Healthy\x0a\x0d\x0a\x02bc\x12\x07Healthy"
    assert wire.requested(b"\x0a\x06\x0a\x01a\x0a\x01b\x0a\x03\x0a\x01c") == [["a", "b"], ["c"]]
    assert wire.allocated([["a", "b"]]) == b"\x0a\x1f\x0a\x1d\x0a\x16NVIDIA_VISIBLE_DEVICES\x12\x03a,b"


def test_long_messages_have_multi_byte_lengths() -> None:
    ids = [f"GPU-{number:036}" for number in range(16)]
    request = wire.devices(ids)  # the same shape as an AllocateRequest: messages of strings in field 1
    assert [container[0] for container in wire.requested(request)] == ids


@pytest.mark.parametrize("request_", [b"\x0a", b"\x0a\x05ab", b"\x08\x01", b"\xff\xff"])
def test_invalid_request_is_rejected(request_: bytes) -> None:
    with pytest.raises(ValueError, match=r"message ends|wire type"):
        wire.requested(request_)


async def test_hardware_follows_the_machine_label(nodes: Nodes, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    nodes.add("labelled", "pcie-8")
    nodes.add("odd", "abacus")
    nodes.add("bare", None)
    hardware = await labelled.hardware(client, "labelled")
    assert hardware
    assert len(set(hardware.uuids)) == 8
    assert await labelled.hardware(client, "odd") is None
    assert await labelled.hardware(client, "bare") is None
    assert "abacus" in caplog.text
    assert "bare has no label" in caplog.text


def test_stand_in_exists_within_its_context_only_and_is_empty_without_hardware() -> None:
    hardware = lay_out(machine("pcie-8"), "n1")
    with labelled.stood_in(hardware) as sysfs, Nvml() as nvml:
        assert [gpu.uuid for gpu in read_topology(nvml, sysfs).gpus] == list(hardware.uuids)
    assert not sysfs.exists()
    with labelled.stood_in(None) as sysfs:
        assert not sysfs.exists()
        assert pynvml.nvmlLib is None


async def test_plugin_registers_again_with_a_restarted_kubelet(tmp_path: Path) -> None:
    grpc = pytest.importorskip("grpc")
    from muster_agent import fake_device_plugin as plugin

    registered: list[bytes] = []

    async def kubelet() -> Any:
        async def register(request: bytes, _context: object) -> bytes:
            registered.append(request)
            return b""

        handlers = {"Register": grpc.unary_unary_rpc_method_handler(register)}
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("v1beta1.Registration", handlers)])
        server.add_insecure_port(f"unix://{tmp_path / 'kubelet.sock'}")
        await server.start()
        return server

    stop = asyncio.Event()
    serving = asyncio.create_task(plugin.serve(tmp_path, ["GPU-0", "GPU-1"], stop))
    first = await kubelet()
    await until(lambda: len(registered) == 1)
    async with grpc.aio.insecure_channel(f"unix://{tmp_path / plugin.SOCKET}") as channel:
        listed = channel.unary_stream("/v1beta1.DevicePlugin/ListAndWatch")(b"")
        assert await listed.read() == wire.devices(["GPU-0", "GPU-1"])
        answer = await channel.unary_unary("/v1beta1.DevicePlugin/Allocate")(b"\x0a\x07\x0a\x05GPU-1")
        assert b"GPU-1" in answer
    await first.stop(None)
    (tmp_path / "kubelet.sock").unlink(missing_ok=True)
    second = await kubelet()
    await until(lambda: len(registered) == 2)
    stop.set()
    await serving
    await second.stop(None)
