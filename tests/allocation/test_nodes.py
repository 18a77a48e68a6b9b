"""A node as the core sees it: what cannot be used of it is left out and said, whatever is written into it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.anything import anything, damaged
from muster.allocation.nodes import Translation, translate, unusable
from muster.api import names
from muster.kube.objects import Node
from muster.scheduling import planner
from muster.scheduling.decisions import Place
from muster.scheduling.gang import Gang, Task
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.eligibility import Taint
from muster.scheduling.topology.links import MOST_GPUS, uniform
from muster.scheduling.topology.machine import unknown_machine
from muster.scheduling.topology.node import Node as CoreNode

TWO = {"gpus": [{"uuid": "a"}, {"uuid": "b"}], "links": [["X", "NV4"], ["NV4", "X"]]}


def node(topology: Any = None, **allocatable: str | int) -> Translation:
    """A node with an annotation and what the kubelet offers."""
    text = topology if isinstance(topology, str) or topology is None else json.dumps(topology)
    meta = {"name": "n", "annotations": {} if text is None else {names.TOPOLOGY: text}}
    return translate(msgspec.convert({"metadata": meta, "status": {"allocatable": allocatable}}, Node))


def offering(gpus: str | int, topology: Any = None) -> Translation:
    return node(topology, **{names.GPU: gpus})


def test_node_is_translated_without_a_word() -> None:
    found, problem = offering(2, TWO)
    assert found is not None
    assert (found.machine.links, found.healthy, problem) == ((("X", "NV4"), ("NV4", "X")), 0b11, "")


def test_node_that_takes_no_pods_keeps_its_taints() -> None:
    """A spread constraint that honours taints does not compare its domain."""
    taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    body = {"metadata": {"name": "n"}, "spec": {"unschedulable": True, "taints": [taint]}}
    found = unusable(msgspec.convert(body, Node), readable=True)
    assert found is not None
    assert (found.node.taints, found.why) == ((Taint(taint["key"], effect="NoSchedule"),), "are cordoned")


@pytest.mark.parametrize("gpus", [65, 5000, "1e9", "1e999999999"])
def test_node_of_too_many_gpus_is_planned_with_the_first_of_them(gpus: str | int) -> None:
    found, problem = offering(gpus)
    assert found is not None
    assert (found.machine.gpus, found.healthy.bit_count()) == (MOST_GPUS, MOST_GPUS)
    assert f"of which the first {MOST_GPUS} are used" in problem


@pytest.mark.parametrize("link", ["NV" + "9" * 400, "NV٣", "NV", "", "nv4", "NV4 "])
def test_annotation_with_a_link_that_no_machine_has_is_ignored(link: str) -> None:
    found, problem = offering(2, {**TWO, "links": [["X", link], [link, "X"]]})
    assert found is not None
    assert (found.machine.links, found.healthy) == (uniform(2), 0b11)
    assert "is no GPU link" in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is ignored"),
        ("[" * 20_000, "is ignored"),
        (json.dumps({**TWO, "driver": "x" * 70_000}), "characters, more than 65536"),
        ({"gpus": [{"uuid": "a"}] * 65, "links": [["X"]] * 65}, "more than the 64"),
        ({**TWO, "gpus": [{"uuid": "a"}] * 9}, "it lists 9 GPUs but links of 2"),
    ],
)
def test_annotation_that_is_no_topology_is_ignored(text: Any, words: str) -> None:
    found, problem = offering(2, text)
    assert found is not None
    assert found.machine.links == uniform(2)
    assert words in problem


@pytest.mark.parametrize("amounts", [{names.GPU: "many"}, {"cpu": "lots"}, {"memory": "-1"}, {"pods": "NaN"}])
def test_node_with_an_amount_that_is_none_is_left_out_and_says_which(amounts: dict[str, str]) -> None:
    found, problem = node(None, **amounts)
    assert found is None
    assert repr(next(iter(amounts.values()))) in problem


GOOD = CoreNode("good", unknown_machine(2), 0b11, 0b11)
BODY = {
    "metadata": {"name": "n", "labels": {names.RACK: "r"}, "annotations": {names.TOPOLOGY: json.dumps(TWO)}},
    "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]},
    "status": {
        "allocatable": {names.GPU: "2", "cpu": "8", "memory": "64Gi"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}
LINKS = st.recursive(
    st.sampled_from(["X", "NV1", "NV12", "PIX", "SYS", "NV0"]) | anything, lambda rows: st.lists(rows, max_size=4)
)


def annotated(text: Any) -> Any:
    return {**BODY, "metadata": {"name": "n", "annotations": {names.TOPOLOGY: text}}}


@settings(max_examples=200, deadline=None)
@given(damaged(BODY) | anything.map(annotated))
def test_whatever_is_written_into_a_node_gangs_are_placed_beside_it(body: Any) -> None:
    try:
        found, _ = translate(msgspec.json.decode(json.dumps(body), type=Node))
    except msgspec.MsgspecError:
        return  # the reflector leaves it out
    nodes = {"good": GOOD} | ({found.name: found} if found is not None else {})
    gang = Gang("g", "q", 0.0, (Task("g-0", 2), Task("g-1", 1)))
    small = Gang("small", "q", 0.0, (Task("s-0", 2),))
    assert any(isinstance(decision, Place) for decision in planner.plan(Snapshot(nodes, (gang, small)), 0.0))


@settings(max_examples=100, deadline=None)
@given(LINKS)
def test_whatever_the_links_are_gangs_are_placed_beside_them(links: Any) -> None:
    found, _ = offering(4, {"gpus": [{"uuid": str(index)} for index in range(4)], "links": links})
    assert found is not None
    gang = Gang("g", "q", 0.0, (Task("g-0", 2),))
    assert any(isinstance(d, Place) for d in planner.plan(Snapshot({"n": found, "good": GOOD}, (gang,)), 0.0))
