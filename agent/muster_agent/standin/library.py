"""A replacement for libnvidia-ml.so.1: methods have the C names and write through pointers.

It answers for one `Hardware` like a current driver: a missing method is a function that the driver lacks, a port beyond the
last is an invalid argument, and a GPU without NVLink does not support NVLink calls. A handle is the GPU's index + 1. Units are
those of nvml.h (bytes, milliwatts, percent, degrees Celsius).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pynvml

from muster.machines.ranges import parse_ranges
from muster_agent.standin.hardware import Hardware

SUCCESS: Final = 0
INVALID_ARGUMENT: Final = 2
NOT_SUPPORTED: Final = 3
TIMEOUT: Final = 10
DRIVER: Final = "580.95.05"
_ANCESTOR: Final = {"PIX": 10, "PXB": 20, "PHB": 30, "NODE": 40, "SYS": 50}
_P2P_NVLINK: Final = 2
_P2P_OK, _P2P_NOT_SUPPORTED = 0, 5
_IDLE_WATTS: Final = 50
_IDLE_CELSIUS: Final = 30


class Library:
    """libnvidia-ml for one machine; `installed` activates it."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self._machine = hardware.machine

    def nvmlInitWithFlags(self, _flags: Any) -> int:  # noqa: N802
        return SUCCESS

    def nvmlShutdown(self) -> int:  # noqa: N802
        return SUCCESS

    def nvmlSystemGetDriverVersion(self, text: Any, _size: Any) -> int:  # noqa: N802
        text.value = DRIVER.encode()
        return SUCCESS

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        return _write(count, self._machine.gpus)

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        if index.value >= self._machine.gpus:
            return INVALID_ARGUMENT
        ctypes.c_void_p.from_buffer(handle._obj).value = index.value + 1
        return SUCCESS

    def nvmlDeviceGetIndex(self, device: Any, index: Any) -> int:  # noqa: N802
        return _write(index, _gpu(device))

    def nvmlDeviceGetUUID(self, device: Any, text: Any, _size: Any) -> int:  # noqa: N802
        text.value = self.hardware.uuids[_gpu(device)].encode()
        return SUCCESS

    def nvmlDeviceGetName(self, _device: Any, text: Any, _size: Any) -> int:  # noqa: N802
        text.value = self._machine.product.encode()
        return SUCCESS

    def nvmlDeviceGetPciInfo_v3(self, device: Any, info: Any) -> int:  # noqa: N802
        return _write_pci(info, self.hardware.gpus[_gpu(device)].address)

    def nvmlDeviceGetMemoryInfo(self, _device: Any, info: Any) -> int:  # noqa: N802
        info._obj.total = info._obj.free = self._machine.gpu_memory_gib << 30
        return SUCCESS

    nvmlDeviceGetMemoryInfo_v2 = nvmlDeviceGetMemoryInfo  # noqa: N815

    def nvmlDeviceGetCpuAffinity(self, device: Any, words: int, affinity: Any) -> int:  # noqa: N802
        cpus = self._machine.cpu_affinity[_gpu(device)]
        return _write_set(affinity, words, parse_ranges(cpus) if cpus else [])

    def nvmlDeviceGetMemoryAffinity(self, device: Any, words: int, nodes: Any, _scope: Any) -> int:  # noqa: N802
        numa = self._machine.numa[_gpu(device)]
        return _write_set(nodes, words, [] if numa is None else [numa])

    def nvmlDeviceGetTopologyCommonAncestor(self, a: Any, b: Any, level: Any) -> int:  # noqa: N802
        return _write(level, _ANCESTOR[self.hardware.distance[_gpu(a)][_gpu(b)]])

    def nvmlDeviceGetP2PStatus(self, a: Any, b: Any, index: int, status: Any) -> int:  # noqa: N802
        if index != _P2P_NVLINK:
            return _write(status, _P2P_OK)
        connected = self._machine.links[_gpu(a)][_gpu(b)].startswith("NV")
        return _write(status, _P2P_OK if connected else _P2P_NOT_SUPPORTED)

    def nvmlDeviceGetNvLinkState(self, device: Any, link: int, state: Any) -> int:  # noqa: N802
        error = self._link_error(device, link)
        return error or _write(state, int(self.hardware.nvlinks[_gpu(device)][link].active))

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, device: Any, link: int, kind: Any) -> int:  # noqa: N802
        error = self._link_error(device, link)
        return error or _write(kind, 2 if self.hardware.nvlinks[_gpu(device)][link].to_switch else 0)

    def nvmlDeviceGetNvLinkRemotePciInfo_v2(self, device: Any, link: int, info: Any) -> int:  # noqa: N802
        error = self._link_error(device, link)
        return error or _write_pci(info, self.hardware.nvlinks[_gpu(device)][link].address)

    def nvmlDeviceGetUtilizationRates(self, _device: Any, rates: Any) -> int:  # noqa: N802
        rates._obj.gpu = rates._obj.memory = 0
        return SUCCESS

    def nvmlDeviceGetTemperature(self, _device: Any, _sensor: Any, degrees: Any) -> int:  # noqa: N802
        return _write(degrees, _IDLE_CELSIUS)

    def nvmlDeviceGetTemperatureV(self, _device: Any, temperature: Any) -> int:  # noqa: N802
        temperature._obj.temperature = _IDLE_CELSIUS
        return SUCCESS

    def nvmlDeviceGetPowerUsage(self, _device: Any, milliwatts: Any) -> int:  # noqa: N802
        return _write(milliwatts, _IDLE_WATTS * 1000)

    def nvmlDeviceGetRemappedRows(self, _device: Any, *counts: Any) -> int:  # noqa: N802
        for count in counts:
            _write(count, 0)
        return SUCCESS

    def nvmlDeviceGetTotalEccErrors(self, _device: Any, _kind: Any, _counter: Any, count: Any) -> int:  # noqa: N802
        return _write(count, 0)

    def nvmlEventSetCreate(self, events: Any) -> int:  # noqa: N802
        ctypes.c_void_p.from_buffer(events._obj).value = 1
        return SUCCESS

    def nvmlDeviceRegisterEvents(self, _device: Any, _kinds: Any, _events: Any) -> int:  # noqa: N802
        return SUCCESS

    def nvmlEventSetWait_v2(self, _events: Any, _data: Any, _milliseconds: Any) -> int:  # noqa: N802
        return TIMEOUT

    def nvmlEventSetFree(self, _events: Any) -> int:  # noqa: N802
        return SUCCESS

    def _link_error(self, device: Any, link: int) -> int:
        ports = self.hardware.nvlinks[_gpu(device)]
        if not ports:
            return NOT_SUPPORTED
        return SUCCESS if link < len(ports) else INVALID_ARGUMENT


@contextmanager
def installed(library: Library) -> Iterator[Library]:
    """Make pynvml call this library instead of the driver's; one at a time in a process, and from one thread."""
    before = pynvml.nvmlLib
    pynvml._nvmlGetFunctionPointer_cache.clear()  # pynvml caches the functions of the previous library
    pynvml.nvmlLib = library
    try:
        yield library
    finally:
        pynvml.nvmlLib = before
        pynvml._nvmlGetFunctionPointer_cache.clear()


def _gpu(device: Any) -> int:
    return (ctypes.cast(device, ctypes.c_void_p).value or 0) - 1


def _write(pointer: Any, value: int) -> int:
    pointer._obj.value = value
    return SUCCESS


def _write_set(pointer: Any, words: int, members: list[int]) -> int:
    for member in members:
        if member < 64 * words:
            pointer._obj[member // 64] |= 1 << member % 64
    return SUCCESS


def _write_pci(pointer: Any, address: str) -> int:
    """NVML uses eight digits for the domain and upper-case hexadecimals."""
    domain, bus, rest = address.split(":")
    pointer._obj.domain, pointer._obj.bus = int(domain, 16), int(bus, 16)
    pointer._obj.busId = f"{int(domain, 16):08X}:{bus.upper()}:{rest.upper()}".encode()
    return SUCCESS
