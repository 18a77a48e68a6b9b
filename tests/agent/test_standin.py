"""What the stand-in machine must have in common with a real one, apart from what a reading shows."""

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
def test_gpus_have_the_ports_of_their_generation(name: str, ports: int, switched: bool) -> None:
    for links in lay_out(machine(name), "n1").nvlinks:
        assert len(links) == ports
        assert all(link.to_switch is switched for link in links)


@KINDS
def test_no_two_devices_share_an_address(kind: Machine) -> None:
    hardware = lay_out(kind, "n1")
    addresses = [place.address for place in (*hardware.gpus, *hardware.nics.values())]
    bridges = {part for place in (*hardware.gpus, *hardware.nics.values()) for part in place.way[:-1]}
    assert len(set(addresses)) == len(addresses)
    assert not bridges & set(addresses)


@KINDS
def test_each_link_has_its_other_end(kind: Machine) -> None:
    hardware = lay_out(kind, "n1")
    at = {place.address: gpu for gpu, place in enumerate(hardware.gpus)}
    for gpu, links in enumerate(hardware.nvlinks):
        for peer in (at[link.address] for link in links if not link.to_switch):
            assert hardware.gpus[gpu].address in [back.address for back in hardware.nvlinks[peer]]


def test_uuids_are_the_nodes_own_and_stay() -> None:
    first, again, other = (lay_out(machine("c4140"), node).uuids for node in ("n1", "n1", "n2"))
    assert first == again
    assert not set(first) & set(other)
    assert all(uuid.startswith("GPU-") and len(uuid) == 40 for uuid in first)
