"""Where devices sit in the PCIe tree, by the directories of /sys: how near each network device is to each GPU.

A PCI device's directory lies below those of all bridges on its way to the CPU, so two paths tell what lies between two
devices. NVML knows GPUs only; this is also how nvidia-smi and NCCL (src/graph/topo.cc) place NICs. Invariant: what /sys
does not tell makes a way no better than it is: the answer is then the slowest, SYS.

`root` is the directory that is /sys on a node.
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
    """A device's way from the CPU: the host bridge, the bridges, the device itself; its NUMA node, None if unknown."""

    way: tuple[str, ...]
    numa: int | None


def find_gpu(root: Path, address: str) -> PciDevice | None:
    """Return where the device with this PCI address sits; None if /sys does not show it."""
    return _pci_device(root / "bus" / "pci" / "devices" / address)


def find_nics(root: Path) -> dict[str, PciDevice]:
    """Return the network devices on PCI by name; an RDMA device stands for the Ethernet and IPoIB interfaces it carries."""
    found: dict[str, PciDevice] = {}
    for name in _NIC_CLASSES:
        for entry in _entries(root / "class" / name):
            if (entry / "device" / "physfn").exists():
                continue  # a virtual function: its physical function stands for it
            device = _pci_device(entry / "device")
            if device is not None and all(device.way != other.way for other in found.values()):
                found[entry.name] = device
    return found


def single_numa_node(root: Path) -> bool:
    """Tell whether the machine has one NUMA node; False if /sys does not say."""
    try:
        return len(parse_ranges(_read(root / "devices" / "system" / "node" / "online") or "")) == 1
    except BadRanges:
        return False


def pcie_link(a: PciDevice | None, b: PciDevice | None, one_numa_node: bool) -> str:
    """Name the way between two devices in the words of nvidia-smi: PIX, PXB, PHB, NODE or SYS."""
    if a is None or b is None:
        return "SYS"
    shared = _shared(a.way, b.way)
    if shared == 0:
        return "NODE" if one_numa_node or (a.numa is not None and a.numa == b.numa) else "SYS"
    if shared == 1:
        return "PHB"
    # One switch is two bridges: its upstream port, shared, and the device's own downstream port.
    below = max(len(a.way), len(b.way)) - shared
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
    way = [parts[bridge]]
    for part in parts[bridge + 1 :]:
        if not _ADDRESS.match(part):
            break  # a virtio function and the like: the PCI device is above it
        way.append(part)
    return PciDevice(tuple(way), _numa(Path(*parts[: bridge + len(way)])))


def _numa(device: Path) -> int | None:
    text = _read(device / "numa_node")
    return int(text) if text is not None and text.isdecimal() else None  # -1: the firmware does not say


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _entries(directory: Path) -> list[Path]:
    """List a directory in natural order, mlx5_2 before mlx5_10; a missing one is empty."""
    try:
        return sorted(directory.iterdir(), key=lambda path: [int(t) if t.isdecimal() else t for t in _SPLIT.split(path.name)])
    except OSError:
        return []
