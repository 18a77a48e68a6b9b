"""The part of /sys with a machine's PCI devices, written as directories and symbolic links.

The layout is the kernel's: devices nested in their bridges in devices/, links to them in bus/pci/devices and class/infiniband.
"""

from __future__ import annotations

from pathlib import Path

from muster_agent.standin.hardware import Hardware, Position


def write_tree(root: Path, hardware: Hardware) -> None:
    """Write the tree into the empty directory `root`; equal machine types have equal trees."""
    nodes = root / "devices" / "system" / "node"
    nodes.mkdir(parents=True)
    last = hardware.numa_nodes - 1
    (nodes / "online").write_text(f"0-{last}\n" if last else "0\n")
    for position in hardware.gpus:
        _device(root, position)
    for name, position in hardware.nics.items():
        rdma = _device(root, position) / "infiniband" / name
        rdma.mkdir(parents=True)
        _link(rdma / "device", _directory(root, position))
        _link(root / "class" / "infiniband" / name, rdma)


def _device(root: Path, position: Position) -> Path:
    directory = _directory(root, position)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "numa_node").write_text(f"{position.numa}\n")
    _link(root / "bus" / "pci" / "devices" / position.address, directory)
    return directory


def _directory(root: Path, position: Position) -> Path:
    return root.joinpath("devices", *position.path)


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
