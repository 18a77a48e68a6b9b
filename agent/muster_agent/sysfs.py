"""Positions of devices in the PCIe tree from /sys, hence the link between each network device and each GPU.

A PCI device's directory is nested in those of all bridges between it and the CPU, so two paths give the link between two
devices. NVML covers GPUs only; nvidia-smi and NCCL (src/graph/topo.cc) locate NICs in the same way. Invariant: a link is never
overrated; without data in /sys it is the slowest, SYS.

`root` is the path of the node's /sys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from muster.machines.ranges import BadRanges, parse_ranges

_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")
_SPLIT = re.compile(r"(\d+)")
_HOST_BRIDGE = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}$")
_NIC_CLASSES = ("infiniband", "net")


@dataclass(frozen=True)
class PciDevice:
    """A device's path from the CPU (host bridge, bridges, the device itself) and its NUMA node, None if unknown."""

    path: tuple[str, ...]
    numa: int | None


def find_gpu(root: Path, address: str) -> PciDevice | None:
    """Return the device with this PCI address; None if it is not in /sys."""
    return _pci_device(root / "bus" / "pci" / "devices" / address)


def find_nics(root: Path) -> dict[str, PciDevice]:
    """Return the PCI network devices by name; an RDMA device represents its Ethernet and IPoIB interfaces."""
    nics: dict[str, PciDevice] = {}
    for name in _NIC_CLASSES:
        for entry in _entries(root / "class" / name):
            if (entry / "device" / "physfn").exists():
                continue  # a virtual function: its physical function represents it
            device = _pci_device(entry / "device")
            if device is not None and all(device.path != nic.path for nic in nics.values()):
                nics[entry.name] = device
    return nics


def single_numa_node(root: Path) -> bool:
    """Return whether the machine has a single NUMA node; False if unknown."""
    try:
        return len(parse_ranges(_read(root / "devices" / "system" / "node" / "online") or "")) == 1
    except BadRanges:
        return False


def pcie_link(a: PciDevice | None, b: PciDevice | None, one_numa_node: bool) -> str:
    """Return the link between two devices in the notation of nvidia-smi: PIX, PXB, PHB, NODE or SYS."""
    if a is None or b is None:
        return "SYS"
    shared = _shared(a.path, b.path)
    if shared == 0:
        return "NODE" if one_numa_node or (a.numa is not None and a.numa == b.numa) else "SYS"
    if shared == 1:
        return "PHB"
    # One switch is two bridges: its upstream port, shared, and the device's own downstream port.
    below = max(len(a.path), len(b.path)) - shared
    return "PIX" if below <= 2 else "PXB"


def _shared(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


def _pci_device(link: Path) -> PciDevice | None:
    try:
        real = link.resolve(strict=True)
    except OSError:
        return None
    parts = real.parts
    bridge = next((i for i, part in enumerate(parts) if _HOST_BRIDGE.match(part)), None)
    if bridge is None:
        return None  # a virtual interface, or one on USB or a platform bus
    path = [parts[bridge]]
    for part in parts[bridge + 1 :]:
        if not _ADDRESS.match(part):
            break  # a virtio function or similar: the PCI device is its parent
        path.append(part)
    return PciDevice(tuple(path), _numa(Path(*parts[: bridge + len(path)])))


def _numa(device: Path) -> int | None:
    text = _read(device / "numa_node")
    return int(text) if text is not None and text.isdecimal() else None  # -1: unknown to the firmware


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _entries(directory: Path) -> list[Path]:
    """The entries of a directory in natural order, mlx5_2 before mlx5_10; empty if it is missing."""
    try:
        return sorted(directory.iterdir(), key=lambda path: [int(t) if t.isdecimal() else t for t in _SPLIT.split(path.name)])
    except OSError:
        return []
