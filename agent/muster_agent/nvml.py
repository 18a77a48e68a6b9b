"""What NVML tells about the GPUs of this node, as plain values: the only module of the agent that calls pynvml to read.

Invariant: after `Nvml()` no method raises because of the driver. What one call will not tell is None, and the first
failure of each call is logged (drivers and GPUs differ in what they support; a log line per GPU and reading would drown
the rest). GPUs are named by their index. Memory in bytes, power in watts, temperature in degrees Celsius, utilisation in
percent.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

import pynvml

log = logging.getLogger(__name__)

_P2P_NVLINK = pynvml.NVML_P2P_CAPS_INDEX_NVLINK
_WORDS = 32  # 64-bit words of a CPU set: 2048 CPUs
_MOST_EVENTS = 256  # in one reading: a broken driver that reports without end must not hold it up
_SKIPPED = (13, 31, 43, 45, 68, 109)  # the XIDs that NVIDIA's device plugin takes for the application's fault


class NoDriver(Exception):
    """There is no NVIDIA driver here, or it does not answer; the message says which."""


class Remote(Enum):
    """What is at the other end of an NVLink."""

    GPU = pynvml.NVML_NVLINK_DEVICE_TYPE_GPU
    NPU = pynvml.NVML_NVLINK_DEVICE_TYPE_IBMNPU
    SWITCH = pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH
    UNKNOWN = pynvml.NVML_NVLINK_DEVICE_TYPE_UNKNOWN


@dataclass(frozen=True)
class NvLink:
    """An active NVLink of a GPU: what it leads to, and the PCI address there (as `pci_address` writes it)."""

    remote: Remote
    address: str | None


@dataclass(frozen=True)
class Memory:
    """GPU memory in bytes."""

    total: int
    used: int


def pci_address(text: str) -> str:
    """Return a PCI address as sysfs writes it: NVML's "00000000:0A:00.0" is "0000:0a:00.0"."""
    domain, _, rest = text.partition(":")
    return f"{int(domain, 16):04x}:{rest}".lower()


class Nvml:
    """A connection to the driver; raise NoDriver if there is none. Close it, or use it as a context manager."""

    def __init__(self) -> None:
        self._warned: set[str] = set()
        self._events: Any = None
        self._lost: set[int] = set()
        self._watched: set[int] = set()
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise NoDriver(f"the NVIDIA driver does not answer: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; the object is of no use afterwards."""
        if self._events is not None:
            self._ask(pynvml.nvmlEventSetFree, self._events)
        self._ask(pynvml.nvmlShutdown)

    def driver(self) -> str | None:
        """Return the driver's version."""
        return _text(self._ask(pynvml.nvmlSystemGetDriverVersion))

    def count(self) -> int | None:
        """Return the number of GPUs."""
        return _number(self._ask(pynvml.nvmlDeviceGetCount))

    def lost(self, gpu: int) -> bool:
        """Tell whether the driver knows of the GPU but cannot reach it, now or at a call before."""
        return self._handle(gpu) is None or gpu in self._lost

    def uuid(self, gpu: int) -> str | None:
        """Return the GPU's name for life."""
        return _text(self._of(pynvml.nvmlDeviceGetUUID, gpu))

    def product(self, gpu: int) -> str | None:
        """Return the GPU's product name."""
        return _text(self._of(pynvml.nvmlDeviceGetName, gpu))

    def address(self, gpu: int) -> str | None:
        """Return the GPU's PCI address as sysfs writes it."""
        info = self._of(pynvml.nvmlDeviceGetPciInfo, gpu)
        return None if info is None else pci_address(info.busId)

    def memory(self, gpu: int) -> Memory | None:
        """Return the GPU's memory, by the newer call or else the older one (there, reserved memory counts as used)."""
        info = self._of(pynvml.nvmlDeviceGetMemoryInfo, gpu, pynvml.nvmlMemory_v2)
        if info is None:
            info = self._of(pynvml.nvmlDeviceGetMemoryInfo, gpu)
        return None if info is None else Memory(int(info.total), int(info.used))

    def cpus(self, gpu: int) -> list[int] | None:
        """Return the CPUs near the GPU."""
        return _members(self._of(pynvml.nvmlDeviceGetCpuAffinity, gpu, _WORDS))

    def numa_nodes(self, gpu: int) -> list[int] | None:
        """Return the NUMA nodes near the GPU, its own CPU's first."""
        scope = pynvml.NVML_AFFINITY_SCOPE_NODE
        return _members(self._of(pynvml.nvmlDeviceGetMemoryAffinity, gpu, _WORDS, scope))

    def common_ancestor(self, a: int, b: int) -> int | None:
        """Return NVML's number for the nearest thing on the PCIe way between two GPUs (NVML_TOPOLOGY_*)."""
        return _number(self._of(pynvml.nvmlDeviceGetTopologyCommonAncestor, a, self._handle(b)))

    def reaches_by_nvlink(self, a: int, b: int) -> bool | None:
        """Tell whether GPU a can read GPU b's memory by NVLink, directly or through switches."""
        status = self._of(pynvml.nvmlDeviceGetP2PStatus, a, self._handle(b), _P2P_NVLINK)
        return None if status is None else status == pynvml.NVML_P2P_STATUS_OK

    def nvlinks(self, gpu: int) -> list[NvLink] | None:
        """Return the GPU's active NVLinks, none for a GPU without NVLink; None if the driver will not tell."""
        handle = self._handle(gpu)
        if handle is None:
            return None
        found = []
        for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
            try:
                state = pynvml.nvmlDeviceGetNvLinkState(handle, link)
            except pynvml.NVMLError_InvalidArgument:
                break  # past the last link
            except pynvml.NVMLError_NotSupported:
                continue  # a GPU without NVLink says so of each link
            except pynvml.NVMLError as error:
                self._warn("nvmlDeviceGetNvLinkState", error)
                return None
            if state == pynvml.NVML_FEATURE_ENABLED:
                found.append(self._nvlink(handle, link))
        return found

    def utilisation(self, gpu: int) -> int | None:
        """Return the percentage of the last sample period in which a kernel ran."""
        rates = self._of(pynvml.nvmlDeviceGetUtilizationRates, gpu)
        return None if rates is None else int(rates.gpu)

    def temperature(self, gpu: int) -> int | None:
        """Return the core's temperature, by the call of newer drivers or else the older one."""
        for call in (pynvml.nvmlDeviceGetTemperatureV, pynvml.nvmlDeviceGetTemperature):
            degrees = self._of(call, gpu, pynvml.NVML_TEMPERATURE_GPU)
            if degrees is not None:
                return int(degrees)
        return None

    def power(self, gpu: int) -> float | None:
        """Return the power drawn by the board."""
        milliwatts = self._of(pynvml.nvmlDeviceGetPowerUsage, gpu)
        return None if milliwatts is None else milliwatts / 1000

    def row_remap_failed(self, gpu: int) -> bool | None:
        """Tell whether a broken memory row could not be replaced; None before Ampere, which has no spare rows."""
        rows = self._of(pynvml.nvmlDeviceGetRemappedRows, gpu)
        return None if rows is None else bool(rows[3])

    def uncorrected_errors(self, gpu: int) -> int | None:
        """Return the memory errors since the driver was loaded that ECC could not correct."""
        kind, since = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
        return _number(self._of(pynvml.nvmlDeviceGetTotalEccErrors, gpu, kind, since))

    def critical_xids(self, gpus: Iterable[int]) -> list[tuple[int, int]]:
        """Return (GPU, XID) of each hardware error since the last call; the first call starts the watch."""
        self._watch(gpus)
        found: list[tuple[int, int]] = []
        for _ in range(_MOST_EVENTS if self._events is not None else 0):
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
                if event.eventType == pynvml.nvmlEventTypeXidCriticalError and event.eventData not in _SKIPPED:
                    found.append((pynvml.nvmlDeviceGetIndex(event.device), int(event.eventData)))
            except pynvml.NVMLError_Timeout:
                break  # nothing more has happened
            except pynvml.NVMLError as error:
                self._warn("nvmlEventSetWait_v2", error)
                break
        return found

    def _watch(self, gpus: Iterable[int]) -> None:
        if self._events is None:
            self._events = self._ask(pynvml.nvmlEventSetCreate)
        for gpu in set(gpus) - self._watched if self._events is not None else ():
            self._of(pynvml.nvmlDeviceRegisterEvents, gpu, pynvml.nvmlEventTypeXidCriticalError, self._events)
            self._watched.add(gpu)

    def _nvlink(self, handle: Any, link: int) -> NvLink:
        kind = self._ask(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType, handle, link)
        info = self._ask(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
        known = kind in (member.value for member in Remote)
        return NvLink(Remote(kind) if known else Remote.UNKNOWN, None if info is None else pci_address(info.busId))

    def _handle(self, gpu: int) -> Any:
        return self._ask(pynvml.nvmlDeviceGetHandleByIndex, gpu)

    def _of(self, call: Callable[..., Any], gpu: int, *rest: Any) -> Any:
        handle = self._handle(gpu)
        if handle is None or any(value is None for value in rest):
            return None
        return self._ask(call, handle, *rest, gpu=gpu)

    def _ask(self, call: Callable[..., Any], *args: Any, gpu: int | None = None) -> Any:
        try:
            return call(*args)
        except pynvml.NVMLError as error:
            if gpu is not None and isinstance(error, (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_ResetRequired)):
                self._lost.add(gpu)
            self._warn(call.__name__, error)
            return None

    def _warn(self, call: str, error: Exception) -> None:
        if call not in self._warned:
            self._warned.add(call)
            log.warning("%s: %s; what it would tell is left out (said once)", call, error)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _members(words: ctypes.Array[ctypes.c_ulonglong] | None) -> list[int] | None:
    """Return the members of a bit set of 64-bit words; an empty set means that the driver does not know."""
    bits = sum(int(word) << 64 * i for i, word in enumerate(words or ()))
    return [i for i in range(bits.bit_length()) if bits >> i & 1] or None
