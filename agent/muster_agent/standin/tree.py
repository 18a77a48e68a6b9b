"""The part of /sys that shows a machine's PCI devices, written as directories and links under any root.

The layout is the kernel's: devices nested below their bridges in devices/, links to them in bus/pci/devices and
class/infiniband.
"""

from __future__ import annotations

from pathlib import Path

from muster_agent.standin.hardware import Hardware, Place


def write_tree(root: Path, hardware: Hardware) -> None:
    """Write the tree into the empty directory `root`; the same machine type gives the same tree on every node."""
    nodes = root / "devices" / "system" / "node"
    nodes.mkdir(parents=True)
    last = hardware.numa_nodes - 1
    (nodes / "online").write_text(f"0-{last}\n" if last else "0\n")
    for place in hardware.gpus:
        _device(root, place)
    for name, place in hardware.nics.items():
        rdma = _device(root, place) / "infiniband" / name
        rdma.mkdir(parents=True)
        _link(rdma / "device", _directory(root, place))
        _link(root / "class" / "infiniband" / name, rdma)


def _device(root: Path, place: Place) -> Path:
    directory = _directory(root, place)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "numa_node").write_text(f"{place.numa}\n")
    _link(root / "bus" / "pci" / "devices" / place.address, directory)
    return directory


def _directory(root: Path, place: Place) -> Path:
    return root.joinpath("devices", *place.way)


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
