"""PCIe positions from /sys, on hand-made trees with the kernel's layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster_agent.sysfs import PciDevice, find_gpu, find_nics, pcie_link, single_numa_node

PORT = "pci0000:10/0000:10:01.0"
SWITCH = f"{PORT}/0000:11:00.0"  # upstream port; 0000:12:xx.0 are its downstream ports
GPU = f"{SWITCH}/0000:12:00.0/0000:13:00.0"


def device(root: Path, path: str, numa: str | None = "0") -> Path:
    directory = root / "devices" / path
    directory.mkdir(parents=True)
    if numa is not None:
        (directory / "numa_node").write_text(f"{numa}\n")
    link = root / "bus" / "pci" / "devices" / directory.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(directory)
    return directory


def nic(root: Path, name: str, path: str, numa: str = "0", kind: str = "infiniband") -> Path:
    directory = device(root, path, numa)
    interface(root, name, directory, kind)
    return directory


def interface(root: Path, name: str, below: Path, kind: str = "net") -> None:
    real = below / kind / name
    real.mkdir(parents=True)
    (real / "device").symlink_to(below)
    link = root / "class" / kind / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(real)


@pytest.mark.parametrize(
    ("path", "numa", "link"),
    [
        (f"{SWITCH}/0000:12:01.0/0000:14:00.0", "0", "PIX"),  # another port of the switch
        (f"{SWITCH}/0000:12:01.0/0000:14:00.0", "1", "PIX"),  # the path takes precedence over NUMA
        (f"{SWITCH}/0000:12:01.0/0000:15:00.0/0000:16:00.0/0000:17:00.0", "0", "PXB"),  # a switch below that switch
        (f"{PORT}/0000:18:00.0/0000:19:00.0/0000:1a:00.0", "0", "PXB"),  # two switches below one root port
        ("pci0000:10/0000:10:02.0/0000:20:00.0", "0", "PHB"),  # another root port
        ("pci0000:40/0000:40:01.0/0000:41:00.0", "0", "NODE"),  # another host bridge of the NUMA node
        ("pci0000:80/0000:80:01.0/0000:81:00.0", "1", "SYS"),  # another NUMA node
        ("pci0000:80/0000:80:01.0/0000:81:00.0", "-1", "SYS"),  # unknown NUMA node
    ],
)
def test_link_between_gpu_and_nic(tmp_path: Path, path: str, numa: str, link: str) -> None:
    device(tmp_path, GPU)
    nic(tmp_path, "mlx5_0", path, numa)
    gpu, other = find_gpu(tmp_path, "0000:13:00.0"), find_nics(tmp_path)["mlx5_0"]
    assert gpu == PciDevice(("pci0000:10", "0000:10:01.0", "0000:11:00.0", "0000:12:00.0", "0000:13:00.0"), 0)
    assert pcie_link(gpu, other, False) == pcie_link(other, gpu, False) == link


def test_two_functions_of_one_card_are_pix(tmp_path: Path) -> None:
    nic(tmp_path, "mlx5_0", f"{PORT}/0000:13:00.0")
    nic(tmp_path, "mlx5_1", f"{PORT}/0000:13:00.1")
    nics = find_nics(tmp_path)
    assert pcie_link(nics["mlx5_0"], nics["mlx5_1"], False) == "PIX"


def test_unknown_numa_nodes_are_near_only_on_a_single_node_machine(tmp_path: Path) -> None:
    a, b = PciDevice(("pci0000:00", "0000:01:00.0"), None), PciDevice(("pci0000:40", "0000:41:00.0"), None)
    assert pcie_link(a, b, one_numa_node=True) == "NODE"
    assert pcie_link(a, b, one_numa_node=False) == "SYS"
    assert pcie_link(a, None, one_numa_node=True) == pcie_link(None, b, one_numa_node=True) == "SYS"
    online = tmp_path / "devices" / "system" / "node" / "online"
    assert not single_numa_node(tmp_path)
    online.parent.mkdir(parents=True)
    for text, single in (("0", True), ("0-1", False), ("0,2", False), ("?", False)):
        online.write_text(text + "\n")
        assert single_numa_node(tmp_path) is single


def test_pci_network_devices_are_found_once(tmp_path: Path) -> None:
    rdma = nic(tmp_path, "mlx5_10", "pci0000:10/0000:10:03.0/0000:20:00.0")
    interface(tmp_path, "ib0", rdma)  # the same card, as a network interface
    nic(tmp_path, "mlx5_2", "pci0000:10/0000:10:02.0/0000:1f:00.0")
    nic(tmp_path, "eth0", "pci0000:10/0000:10:04.0/0000:21:00.0", kind="net")
    function = nic(tmp_path, "mlx5_3", "pci0000:10/0000:10:03.0/0000:20:00.1")
    (function / "physfn").symlink_to(rdma)
    (tmp_path / "devices" / "virtual" / "net" / "lo").mkdir(parents=True)
    (tmp_path / "class" / "net" / "lo").symlink_to(tmp_path / "devices" / "virtual" / "net" / "lo")
    assert list(find_nics(tmp_path)) == ["mlx5_2", "mlx5_10", "eth0"]


def test_virtio_interface_has_the_position_of_its_pci_function(tmp_path: Path) -> None:
    function = device(tmp_path, "pci0000:00/0000:00:03.0", "-1")
    (function / "virtio0").mkdir()
    interface(tmp_path, "eth0", function / "virtio0")
    assert find_nics(tmp_path) == {"eth0": PciDevice(("pci0000:00", "0000:00:03.0"), None)}


def test_empty_sysfs_has_no_devices(tmp_path: Path) -> None:
    assert find_nics(tmp_path) == {}
    assert find_gpu(tmp_path, "0000:13:00.0") is None
    device(tmp_path, GPU, numa=None)
    gpu = find_gpu(tmp_path, "0000:13:00.0")
    assert gpu is not None
    assert gpu.numa is None
