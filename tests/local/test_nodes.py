"""Node objects from a text: their resources, their racks, and the errors of an invalid text."""

from __future__ import annotations

from typing import Any

import pytest

from muster import machines
from muster.api import names
from muster_dev.local.nodes import KWOK, BadNodes, Layout, is_ready, manifests, parse


def test_text_is_parsed_into_machine_types_and_counts_in_order() -> None:
    assert [(machine.name, count) for machine, count in parse(" dgx-a100:4, pcie-8:8,p100:2 ")] == [
        ("dgx-a100", 4),
        ("pcie-8", 8),
        ("p100", 2),
    ]


@pytest.mark.parametrize("text", ["", "  "])
def test_empty_text_describes_no_nodes(text: str) -> None:
    assert manifests(text) == []


@pytest.mark.parametrize(
    ("text", "refusal"),
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
def test_invalid_text_is_refused_with_its_invalid_part(text: str, refusal: str) -> None:
    with pytest.raises(BadNodes, match=refusal):
        parse(text)


def test_node_has_the_resources_of_its_machine_type() -> None:
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


def locations(nodes: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    labels = [node["metadata"]["labels"] for node in nodes]
    return [(label["kubernetes.io/hostname"], label[names.RACK], label[names.BLOCK]) for label in labels]


def test_racks_are_filled_and_each_machine_type_begins_a_new_one() -> None:
    assert locations(manifests("p100:3,v100:1", layout=Layout(nodes_per_rack=2, racks_per_block=2))) == [
        ("p100-0", "rack-0", "block-0"),
        ("p100-1", "rack-0", "block-0"),
        ("p100-2", "rack-1", "block-0"),
        ("v100-0", "rack-2", "block-1"),
    ]


def test_node_without_kwok_is_declared_ready_and_node_of_kwok_is_not() -> None:
    (of_kwok,), (plain,) = manifests("p100:1"), manifests("p100:1", kwok=False)
    assert KWOK in of_kwok["metadata"]["labels"]
    assert not is_ready(of_kwok)
    assert KWOK not in plain["metadata"]["labels"]
    assert is_ready(plain)


def test_ready_node_with_the_taint_of_a_new_node_takes_no_pods() -> None:
    (node,) = manifests("p100:1", kwok=False)
    tainted = node | {"spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}}
    assert not is_ready(tainted)
