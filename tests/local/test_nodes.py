"""Node objects from a text: what they carry, how they stand in racks, and what is said of a text that is none."""

from __future__ import annotations

from typing import Any

import pytest

from muster import machines
from muster.api import names
from muster_dev.local.nodes import KWOK, BadNodes, Layout, is_ready, manifests, parse


def test_each_machine_type_and_its_count_in_order() -> None:
    assert [(machine.name, count) for machine, count in parse(" dgx-a100:4, pcie-8:8,p100:2 ")] == [
        ("dgx-a100", 4),
        ("pcie-8", 8),
        ("p100", 2),
    ]


@pytest.mark.parametrize("text", ["", "  "])
def test_no_nodes_is_no_error(text: str) -> None:
    assert manifests(text) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dgx-a100", "'dgx-a100'"),
        (":4", "':4'"),
        ("dgx-a100:4,", "''"),
        ("dgx-a100:0", "'0' is no number of nodes"),
        ("dgx-a100:-1", "'-1' is no number of nodes"),
        ("dgx-a100:four", "'four' is no number of nodes"),
        ("dgx-a100:٣", "is no number of nodes"),
        ("dgx-a100:1:2", "'1:2' is no number of nodes"),
        ("abacus:4", "'abacus'.*dgx-a100"),
        ("p100:2,dgx-a100:1,p100:3", "p100 is named twice"),
        ("p100:19999,v100:2", "20001 nodes"),
    ],
)
def test_a_bad_text_is_told_with_what_was_found(text: str, found: str) -> None:
    with pytest.raises(BadNodes, match=found):
        parse(text)


def test_a_node_has_the_resources_of_its_machine_type() -> None:
    machine = machines.machine("dgx-a100")
    (node,) = manifests("dgx-a100:1")
    assert node["status"]["allocatable"] == node["status"]["capacity"]
    assert node["status"]["capacity"] == {
        "cpu": str(machine.cpus),
        "memory": f"{machine.memory_gib}Gi",
        "ephemeral-storage": "1Ti",
        "pods": "110",
        names.GPU: str(machine.gpus),
    }
    assert node["metadata"]["labels"][names.MACHINE] == "dgx-a100"
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == node["metadata"]["name"] == "dgx-a100-0"


def places(nodes: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    labels = [node["metadata"]["labels"] for node in nodes]
    return [(each["kubernetes.io/hostname"], each[names.RACK], each[names.BLOCK]) for each in labels]


def test_racks_fill_up_and_each_machine_type_begins_a_new_one() -> None:
    assert places(manifests("p100:3,v100:1", layout=Layout(nodes_per_rack=2, racks_per_block=2))) == [
        ("p100-0", "rack-0", "block-0"),
        ("p100-1", "rack-0", "block-0"),
        ("p100-2", "rack-1", "block-0"),
        ("v100-0", "rack-2", "block-1"),
    ]


def test_kwok_nodes_wait_for_kwok_and_plain_ones_are_born_ready() -> None:
    (kept,), (plain,) = manifests("p100:1"), manifests("p100:1", kwok=False)
    assert KWOK in kept["metadata"]["labels"]
    assert not is_ready(kept)
    assert KWOK not in plain["metadata"]["labels"]
    assert is_ready(plain)


def test_a_ready_node_with_the_taint_of_its_birth_takes_no_pods_yet() -> None:
    (node,) = manifests("p100:1", kwok=False)
    tainted = node | {"spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}}
    assert not is_ready(tainted)
