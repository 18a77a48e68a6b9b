"""NVML's data on this node's GPUs as plain values: the only module of the agent that reads through pynvml.

Invariant: after `Nvml()` no method raises because of the driver. An unavailable value is None, and the first failure of each
call is logged (drivers and GPUs differ in their features; a log line for each GPU and reading would flood the log). GPUs are
identified by index. Units: memory in bytes, power in watts, temperature in degrees Celsius, utilisation in percent.
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
_MOST_EVENTS = 256  # of one reading: a broken driver may report events without end
_SKIPPED = (13, 31, 43, 45, 68, 109)  # XIDs that NVIDIA's device plugin attributes to the application


class NoDriver(Exception):
    """The NVIDIA driver is missing or does not answer; the message says which."""


class Remote(Enum):
    """The kind of device at the other end of an NVLink."""

    GPU = pynvml.NVML_NVLINK_DEVICE_TYPE_GPU
    NPU = pynvml.NVML_NVLINK_DEVICE_TYPE_IBMNPU
    SWITCH = pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH
    UNKNOWN = pynvml.NVML_NVLINK_DEVICE_TYPE_UNKNOWN


@dataclass(frozen=True)
class NvLink:
    """An active NVLink of a GPU: the kind of its peer, and the peer's PCI address in the form of `pci_address`."""

    remote: Remote
    address: str | None


@dataclass(frozen=True)
class Memory:
    """GPU memory in bytes."""

    total: int
    used: int


def pci_address(text: str) -> str:
    """Return a PCI address in the form of sysfs: NVML's "00000000:0A:00.0" becomes "0000:0a:00.0"."""
    domain, _, rest = text.partition(":")
    return f"{int(domain, 16):04x}:{rest}".lower()


class Nvml:
    """A connection to the driver; raises NoDriver if there is none. Close it, or use it as a context manager."""

    def __init__(self) -> None:
        self._warned: set[str] = set()
        self._events: Any = None
        self._lost: set[int] = set()
        self._registered: set[int] = set()
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise NoDriver(f"the NVIDIA driver does not answer: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the object is unusable afterwards."""
        if self._events is not None:
            self._call(pynvml.nvmlEventSetFree, self._events)
        self._call(pynvml.nvmlShutdown)

    def driver(self) -> str | None:
        """Return the driver's version."""
        return _text(self._call(pynvml.nvmlSystemGetDriverVersion))

    def count(self) -> int | None:
        """Return the number of GPUs."""
        return _number(self._call(pynvml.nvmlDeviceGetCount))

    def lost(self, gpu: int) -> bool:
        """Return whether the driver lists the GPU but cannot reach it, now or in an earlier call."""
        return self._handle(gpu) is None or gpu in self._lost

    def uuid(self, gpu: int) -> str | None:
        """Return the GPU's UUID."""
        return _text(self._call_for(pynvml.nvmlDeviceGetUUID, gpu))

    def product(self, gpu: int) -> str | None:
        """Return the GPU's product name."""
        return _text(self._call_for(pynvml.nvmlDeviceGetName, gpu))

    def address(self, gpu: int) -> str | None:
        """Return the GPU's PCI address in the form of sysfs."""
        info = self._call_for(pynvml.nvmlDeviceGetPciInfo, gpu)
        return None if info is None else pci_address(info.busId)

    def memory(self, gpu: int) -> Memory | None:
        """Return the GPU's memory, from the older call if the newer is missing (it counts reserved memory as used)."""
        info = self._call_for(pynvml.nvmlDeviceGetMemoryInfo, gpu, pynvml.nvmlMemory_v2)
        if info is None:
            info = self._call_for(pynvml.nvmlDeviceGetMemoryInfo, gpu)
        return None if info is None else Memory(int(info.total), int(info.used))

    def cpus(self, gpu: int) -> list[int] | None:
        """Return the CPUs near the GPU."""
        return _members(self._call_for(pynvml.nvmlDeviceGetCpuAffinity, gpu, _WORDS))

    def numa_nodes(self, gpu: int) -> list[int] | None:
        """Return the NUMA nodes near the GPU, its own CPU's first."""
        scope = pynvml.NVML_AFFINITY_SCOPE_NODE
        return _members(self._call_for(pynvml.nvmlDeviceGetMemoryAffinity, gpu, _WORDS, scope))

    def common_ancestor(self, a: int, b: int) -> int | None:
        """Return the nearest common PCIe ancestor of two GPUs (NVML_TOPOLOGY_*)."""
        return _number(self._call_for(pynvml.nvmlDeviceGetTopologyCommonAncestor, a, self._handle(b)))

    def reaches_by_nvlink(self, a: int, b: int) -> bool | None:
        """Return whether GPU a can read GPU b's memory over NVLink, directly or through switches."""
        status = self._call_for(pynvml.nvmlDeviceGetP2PStatus, a, self._handle(b), _P2P_NVLINK)
        return None if status is None else status == pynvml.NVML_P2P_STATUS_OK

    def nvlinks(self, gpu: int) -> list[NvLink] | None:
        """Return the GPU's active NVLinks, empty for a GPU without NVLink, None if unavailable."""
        handle = self._handle(gpu)
        if handle is None:
            return None
        links = []
        for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
            try:
                state = pynvml.nvmlDeviceGetNvLinkState(handle, link)
            except pynvml.NVMLError_InvalidArgument:
                break  # past the last link
            except pynvml.NVMLError_NotSupported:
                continue  # on a GPU without NVLink every link is unsupported
            except pynvml.NVMLError as error:
                self._warn("nvmlDeviceGetNvLinkState", error)
                return None
            if state == pynvml.NVML_FEATURE_ENABLED:
                links.append(self._nvlink(handle, link))
        return links

    def utilisation(self, gpu: int) -> int | None:
        """Return the percentage of the last sample period in which a kernel ran."""
        rates = self._call_for(pynvml.nvmlDeviceGetUtilizationRates, gpu)
        return None if rates is None else int(rates.gpu)

    def temperature(self, gpu: int) -> int | None:
        """Return the core's temperature, from the older call if the newer is missing."""
        for call in (pynvml.nvmlDeviceGetTemperatureV, pynvml.nvmlDeviceGetTemperature):
            degrees = self._call_for(call, gpu, pynvml.NVML_TEMPERATURE_GPU)
            if degrees is not None:
                return int(degrees)
        return None

    def power(self, gpu: int) -> float | None:
        """Return the power drawn by the board."""
        milliwatts = self._call_for(pynvml.nvmlDeviceGetPowerUsage, gpu)
        return None if milliwatts is None else milliwatts / 1000

    def row_remap_failed(self, gpu: int) -> bool | None:
        """Return whether a row remapping failed; None before Ampere, which has no spare rows."""
        rows = self._call_for(pynvml.nvmlDeviceGetRemappedRows, gpu)
        return None if rows is None else bool(rows[3])

    def uncorrected_errors(self, gpu: int) -> int | None:
        """Return the number of uncorrected ECC errors since the driver was loaded."""
        kind, since = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
        return _number(self._call_for(pynvml.nvmlDeviceGetTotalEccErrors, gpu, kind, since))

    def critical_xids(self, gpus: Iterable[int]) -> list[tuple[int, int]]:
        """Return (GPU, XID) of each hardware error since the last call; the first call registers for events."""
        self._register(gpus)
        errors: list[tuple[int, int]] = []
        for _ in range(_MOST_EVENTS if self._events is not None else 0):
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
                if event.eventType == pynvml.nvmlEventTypeXidCriticalError and event.eventData not in _SKIPPED:
                    errors.append((pynvml.nvmlDeviceGetIndex(event.device), int(event.eventData)))
            except pynvml.NVMLError_Timeout:
                break  # no further events
            except pynvml.NVMLError as error:
                self._warn("nvmlEventSetWait_v2", error)
                break
        return errors

    def _register(self, gpus: Iterable[int]) -> None:
        if self._events is None:
            self._events = self._call(pynvml.nvmlEventSetCreate)
        for gpu in set(gpus) - self._registered if self._events is not None else ():
            self._call_for(pynvml.nvmlDeviceRegisterEvents, gpu, pynvml.nvmlEventTypeXidCriticalError, self._events)
            self._registered.add(gpu)

    def _nvlink(self, handle: Any, link: int) -> NvLink:
        kind = self._call(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType, handle, link)
        info = self._call(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
        is_known = kind in (member.value for member in Remote)
        return NvLink(Remote(kind) if is_known else Remote.UNKNOWN, None if info is None else pci_address(info.busId))

    def _handle(self, gpu: int) -> Any:
        return self._call(pynvml.nvmlDeviceGetHandleByIndex, gpu)

    def _call_for(self, call: Callable[..., Any], gpu: int, *rest: Any) -> Any:
        handle = self._handle(gpu)
        if handle is None or any(value is None for value in rest):
            return None
        return self._call(call, handle, *rest, gpu=gpu)

    def _call(self, call: Callable[..., Any], *args: Any, gpu: int | None = None) -> Any:
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
            log.warning("%s: %s; its values are left out (logged once)", call, error)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _members(words: ctypes.Array[ctypes.c_ulonglong] | None) -> list[int] | None:
    """The members of a bit set of 64-bit words; None for an empty set, which drivers return for unknown."""
    bits = sum(int(word) << 64 * i for i, word in enumerate(words or ()))
    return [i for i in range(bits.bit_length()) if bits >> i & 1] or None
