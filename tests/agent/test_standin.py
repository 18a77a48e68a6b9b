"""Properties of stand-in machines that a reading does not show."""

from __future__ import annotations

import pytest

from muster.machines import Machine, catalogue, machine
from muster_agent.standin.hardware import lay_out

KINDS = pytest.mark.parametrize("kind", catalogue().values(), ids=lambda kind: kind.name)


@pytest.mark.parametrize(
    ("name", "ports", "switched"),
    [
        ("p100", 4, False),
        ("v100", 6, False),
        ("redstone", 12, False),
        ("gh200", 18, False),
        ("pcie-8", 0, False),
        ("dgx-2", 6, True),
        ("dgx-a100", 12, True),
        ("dgx-h100", 18, True),
    ],
)
def test_gpu_has_the_ports_of_its_generation(name: str, ports: int, switched: bool) -> None:
    for links in lay_out(machine(name), "n1").nvlinks:
        assert len(links) == ports
        assert all(link.to_switch is switched for link in links)


@KINDS
def test_device_addresses_are_unique(kind: Machine) -> None:
    hardware = lay_out(kind, "n1")
    addresses = [position.address for position in (*hardware.gpus, *hardware.nics.values())]
    bridges = {part for position in (*hardware.gpus, *hardware.nics.values()) for part in position.path[:-1]}
    assert len(set(addresses)) == len(addresses)
    assert not bridges & set(addresses)


@KINDS
def test_each_link_has_a_peer_link(kind: Machine) -> None:
    hardware = lay_out(kind, "n1")
    gpu_at = {position.address: gpu for gpu, position in enumerate(hardware.gpus)}
    for gpu, links in enumerate(hardware.nvlinks):
        for peer in (gpu_at[link.address] for link in links if not link.to_switch):
            assert hardware.gpus[gpu].address in [back.address for back in hardware.nvlinks[peer]]


def test_uuids_are_stable_and_unique_per_node() -> None:
    first, again, other = (lay_out(machine("c4140"), node).uuids for node in ("n1", "n1", "n2"))
    assert first == again
    assert not set(first) & set(other)
    assert all(uuid.startswith("GPU-") and len(uuid) == 40 for uuid in first)
