"""The real pynvml over a stand-in machine returns the machine's table, and a failing call loses only its own data."""

from __future__ import annotations

import ctypes
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pynvml
import pytest

from agent.conftest import Install, override
from muster.api.topology import Nic, NodeTopology, decode, encode
from muster.machines import Machine, catalogue, machine
from muster_agent.nvml import NoDriver, Nvml, pci_address
from muster_agent.reading import Sample, read_samples, read_topology
from muster_agent.standin.hardware import lay_out
from muster_agent.standin.library import Library, installed

NOT_SUPPORTED, FUNCTION_NOT_FOUND, GPU_IS_LOST, UNKNOWN = 3, 13, 15, 999


def read(sysfs: Path) -> NodeTopology:
    with Nvml() as nvml:
        return read_topology(nvml, sysfs)


def samples(sysfs: Path) -> list[Sample]:
    with Nvml() as nvml:
        return read_samples(nvml, read_topology(nvml, sysfs))


def links(topology: NodeTopology) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row) for row in topology.links)


@pytest.mark.parametrize("kind", catalogue().values(), ids=lambda kind: kind.name)
def test_reading_equals_the_machines_table(kind: Machine, install: Install, sysfs: Path) -> None:
    library = install(kind.name)
    topology = read(sysfs)
    assert links(topology) == kind.links
    assert {nic.name: tuple(nic.links) for nic in topology.nics} == kind.nics
    assert tuple(gpu.cpus for gpu in topology.gpus) == kind.cpu_affinity
    if any(node is not None for node in kind.numa):
        assert tuple(gpu.numa for gpu in topology.gpus) == kind.numa
    assert {(gpu.product, gpu.memory_mib, gpu.healthy) for gpu in topology.gpus} == {
        (kind.product, kind.gpu_memory_gib * 1024, True)
    }
    assert tuple(gpu.uuid for gpu in topology.gpus) == library.hardware.uuids
    assert topology.driver == "580.95.05"
    assert decode(encode(topology)) == topology


def test_pci_address_has_the_form_of_sysfs() -> None:
    assert pci_address("00000000:0A:00.0") == "0000:0a:00.0"
    assert pci_address("0001FFFF:C4:1F.7") == "1ffff:c4:1f.7"
    assert pci_address("00010000:C4:00.0") == "10000:c4:00.0"


# Calls whose failure loses no data of the topology.
HARMLESS: tuple[str, ...] = (
    "nvmlShutdown",
    "nvmlDeviceGetIndex",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMemoryInfo_v2",  # the older call has the same data
    "nvmlDeviceGetTopologyCommonAncestor",  # /sys has the same data
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlEventSetCreate",
    "nvmlDeviceRegisterEvents",
    "nvmlEventSetWait_v2",
    "nvmlEventSetFree",
)
FIELD = {"nvmlDeviceGetName": {"product": None}, "nvmlDeviceGetCpuAffinity": {"cpus": None}}
CASES = ["v100-vm", "dgx-h100", "pcie-8"]  # links between GPUs, links to switches, no links
FUNCTIONS = [name for name in vars(Library) if name.startswith("nvml") and name != "nvmlInitWithFlags"]


def without(kind: str, call: str, complete: NodeTopology) -> NodeTopology:
    """The expected reading if `call` fails."""
    hardware = lay_out(machine(kind), "n1")
    by_pcie = [list(row) for row in hardware.distance]
    for i in range(len(by_pcie)):
        by_pcie[i][i] = "X"
    gpus, nics = complete.gpus, complete.nics
    unknown_nics = [Nic(nic.name, ["SYS"] * len(gpus)) for nic in nics]
    switched = kind == "dgx-h100"
    match call:
        case _ if call in HARMLESS:
            return complete
        case "nvmlDeviceGetName" | "nvmlDeviceGetCpuAffinity":
            return replace_gpus(complete, **FIELD[call])
        case "nvmlDeviceGetUUID":
            return replace_gpus(complete, uuid="")
        case "nvmlDeviceGetMemoryAffinity":  # /sys has it where the firmware provides it
            return complete if kind == "pcie-8" else replace_gpus(complete, numa=None)
        case "nvmlSystemGetDriverVersion":
            return NodeTopology(gpus, complete.links, nics)
        case "nvmlDeviceGetPciInfo_v3":
            return NodeTopology(gpus, complete.links if switched else by_pcie, unknown_nics, complete.driver)
        case "nvmlDeviceGetNvLinkState":
            return NodeTopology(gpus, by_pcie, nics, complete.driver)
        case "nvmlDeviceGetNvLinkRemotePciInfo_v2":
            return NodeTopology(gpus, complete.links if switched else by_pcie, nics, complete.driver)
        case "nvmlDeviceGetNvLinkRemoteDeviceType" | "nvmlDeviceGetP2PStatus":
            return NodeTopology(gpus, by_pcie if switched else complete.links, nics, complete.driver)
        case "nvmlDeviceGetCount_v2":
            return NodeTopology([], [], [Nic(nic.name, []) for nic in nics], complete.driver)
        case "nvmlDeviceGetHandleByIndex_v2":
            far = [["X" if i == j else "SYS" for j in range(len(gpus))] for i in range(len(gpus))]
            bare = replace_gpus(complete, uuid="", product=None, memory_mib=None, numa=None, cpus=None)
            return NodeTopology(bare.gpus, far, unknown_nics, complete.driver)
    raise AssertionError(f"no expected reading is defined without {call}")


def replace_gpus(topology: NodeTopology, **fields: Any) -> NodeTopology:
    return msgspec.structs.replace(topology, gpus=[msgspec.structs.replace(gpu, **fields) for gpu in topology.gpus])


@pytest.mark.parametrize("code", [NOT_SUPPORTED, FUNCTION_NOT_FOUND, UNKNOWN])
@pytest.mark.parametrize("call", FUNCTIONS)
@pytest.mark.parametrize("kind", CASES)
def test_failing_call_loses_only_its_own_data(
    kind: str, call: str, code: int, install: Install, sysfs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library = install(kind)
    complete = read(sysfs)
    caplog.clear()
    override(library, **{call: lambda *_: code})
    assert read(sysfs) == without(kind, call, complete)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) <= 1
    if call in ("nvmlDeviceGetName", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetUUID"):
        assert "logged once" in warnings[0].getMessage()


@pytest.mark.parametrize("call", FUNCTIONS)
def test_missing_driver_function_is_a_failing_call(call: str, install: Install, sysfs: Path) -> None:
    library = install("v100-vm")
    complete = read(sysfs)
    pynvml._nvmlGetFunctionPointer_cache.clear()

    class Older:
        def __getattr__(self, name: str) -> Any:
            if name == call:
                raise AttributeError(name)
            return getattr(library, name)

    pynvml.nvmlLib = Older()
    assert read(sysfs) == without("v100-vm", call, complete)


@pytest.mark.parametrize(
    ("calls", "missing"),
    [
        (["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo"], {"memory_used": None, "memory_total": None}),
        (["nvmlDeviceGetUtilizationRates"], {"utilisation": None}),
        (["nvmlDeviceGetTemperatureV"], {}),
        (["nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"], {"temperature": None}),
        (["nvmlDeviceGetPowerUsage"], {"power": None}),
    ],
)
def test_samples_lack_unreported_values(calls: list[str], missing: dict[str, None], install: Install, sysfs: Path) -> None:
    library = install("c4140")
    complete = samples(sysfs)
    assert complete[1] == Sample(1, library.hardware.uuids[1], True, 0.0, 0, 16 << 30, 30, 50.0)
    override(library, **dict.fromkeys(calls, lambda *_: NOT_SUPPORTED))
    changes: dict[str, Any] = dict(missing)
    assert samples(sysfs) == [replace(sample, **changes) for sample in complete]


def test_samples_have_the_reported_values(install: Install, sysfs: Path) -> None:
    library = install("c4140")

    def busy(_device: Any, rates: Any) -> int:
        rates._obj.gpu, rates._obj.memory = 87, 12
        return 0

    def memory(_device: Any, info: Any) -> int:
        info._obj.total, info._obj.used, info._obj.free = 16 << 30, 3 << 30, 13 << 30
        return 0

    override(library, nvmlDeviceGetUtilizationRates=busy)
    override(library, nvmlDeviceGetMemoryInfo_v2=memory)
    sample = samples(sysfs)[0]
    assert (sample.utilisation, sample.memory_used, sample.memory_total) == (0.87, 3 << 30, 16 << 30)


def test_links_of_a_silent_gpu_are_read_from_its_peers(install: Install, sysfs: Path) -> None:
    library = install("c4140")
    state = library.nvmlDeviceGetNvLinkState

    def silent(device: Any, link: int, answer: Any) -> int:
        return UNKNOWN if ctypes.cast(device, ctypes.c_void_p).value == 1 else state(device, link, answer)

    override(library, nvmlDeviceGetNvLinkState=silent)
    assert links(read(sysfs)) == machine("c4140").links


def test_inactive_link_is_not_counted(install: Install, sysfs: Path) -> None:
    hardware = lay_out(machine("c4140"), "n1")  # ports 0 and 1 of GPU 0 lead to GPU 1
    ports = (replace(hardware.nvlinks[0][0], active=False), *hardware.nvlinks[0][1:])
    install(replace(hardware, nvlinks=(ports, *hardware.nvlinks[1:])))
    assert read(sysfs).links[0] == ["X", "NV1", "NV2", "NV2"]
    assert read(sysfs).links[1] == ["NV1", "X", "NV2", "NV2"]


def test_switch_links_do_not_count_while_the_fabric_is_down(install: Install, sysfs: Path) -> None:
    library = install("dgx-h100")

    def status(_a: Any, _b: Any, _index: Any, answer: Any) -> int:
        answer._obj.value = 5
        return 0

    override(library, nvmlDeviceGetP2PStatus=status)
    assert {cell for row in read(sysfs).links for cell in row} == {"X", "SYS"}


def test_missing_sysfs_keeps_gpu_links_without_nics(install: Install, tmp_path: Path) -> None:
    install("v100-vm")
    topology = read(tmp_path / "nowhere")
    assert links(topology) == machine("v100-vm").links
    assert topology.nics == []


def test_unhealthy_gpu_keeps_its_index(install: Install, sysfs: Path) -> None:
    install("c4140")
    with Nvml() as nvml:
        topology = read_topology(nvml, sysfs, unhealthy={2: "XID 79"})
    assert [gpu.healthy for gpu in topology.gpus] == [True, True, False, True]
    assert links(topology) == machine("c4140").links


def test_missing_driver_raises_no_driver() -> None:
    with pytest.raises(NoDriver, match="Not Found"):
        Nvml()


def test_unloaded_driver_raises_no_driver() -> None:
    library = Library(lay_out(machine("c4140"), "n1"))
    override(library, nvmlInitWithFlags=lambda _flags: 9)
    with installed(library), pytest.raises(NoDriver, match="Driver Not Loaded"):
        Nvml()


def test_lost_gpu_stays_lost(install: Install, sysfs: Path) -> None:
    library = install("c4140")
    name = library.nvmlDeviceGetName

    def lost(device: Any, text: Any, size: Any) -> int:
        return GPU_IS_LOST if ctypes.cast(device, ctypes.c_void_p).value == 3 else name(device, text, size)

    override(library, nvmlDeviceGetName=lost)
    with Nvml() as nvml:
        read_topology(nvml, sysfs)
        assert [nvml.lost(gpu) for gpu in range(4)] == [False, False, True, False]
