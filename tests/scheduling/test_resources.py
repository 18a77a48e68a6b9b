"""Amounts of resources by name: what a node holds of them, and how often something fits in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.scheduling.resources import HOST_PORT, Resources

RDMA, DISK = "rdma/hca", "ephemeral-storage"
amounts = st.dictionaries(st.sampled_from([RDMA, DISK, "hugepages-2Mi", f"{HOST_PORT}TCP/80"]), st.integers(1, 9))
resources = st.builds(
    lambda cpu, memory, pods, others: Resources(cpu, memory, pods, tuple(sorted(others.items()))),
    *[st.integers(0, 9)] * 3,
    amounts,
)


def named(**others: int) -> Resources:
    return Resources(8, 8, 8, tuple(sorted((name.replace("_", "/"), amount) for name, amount in others.items())))


@pytest.mark.parametrize(
    ("has", "each", "times"),
    [
        (named(rdma_hca=4), named(rdma_hca=2)._replace(cpu=0, memory=0, pods=1), 2),
        (named(rdma_hca=1), named(rdma_hca=2)._replace(cpu=0, memory=0, pods=1), 0),
        (named(), named(rdma_hca=1)._replace(cpu=0, memory=0, pods=1), 0),
        (named(rdma_hca=4), Resources(pods=1), 8),
    ],
)
def test_resource_by_name_limits_how_often_something_fits(has: Resources, each: Resources, times: int) -> None:
    assert has.holds(each, 100) == times
    assert has.covers(each) is (times > 0)


def test_node_has_each_host_port_once_without_listing_it() -> None:
    port = Resources(pods=1, others=((f"{HOST_PORT}TCP/80", 1),))
    node = Resources(pods=8)
    assert node.holds(port, 8) == 1
    assert (node - port).holds(port, 8) == 0
    assert (node - port).holds(port._replace(others=((f"{HOST_PORT}UDP/80", 1),)), 8) == 1
    assert node - port + port == node


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        ("TCP/80", "TCP/80 at 10.0.0.1", True),
        ("TCP/80 at 10.0.0.1", "TCP/80 at 10.0.0.1", True),
        ("TCP/80 at 10.0.0.1", "TCP/80 at 10.0.0.2", False),
        ("TCP/80 at 10.0.0.1", "UDP/80", False),
        ("TCP/80", "TCP/8080 at 10.0.0.1", False),
    ],
)
def test_host_port_of_all_addresses_takes_that_of_each(one: str, other: str, conflict: bool) -> None:
    first, second = (Resources(pods=1, others=((f"{HOST_PORT}{port}", 1),)) for port in (one, other))
    node = Resources(pods=8)
    assert (node - first).covers(second) is not conflict
    assert (node - second).covers(first) is not conflict


def test_node_that_others_have_overcommitted_takes_what_asks_for_nothing_of_that() -> None:
    node = Resources(-1, -1, 8)
    assert node.holds(Resources(pods=1), 9) == 8
    assert not node.covers(Resources(cpu=1, pods=1))
    assert not node.covers(Resources(memory=1, pods=1))


@given(resources, resources)
def test_what_was_taken_and_given_back_was_never_gone(has: Resources, part: Resources) -> None:
    assert has - part + part == has
    assert has.union(part).covers(part)
    assert part + part == part.times(2)


@given(resources, resources, st.integers(0, 9))
def test_as_many_fit_as_can_be_taken_one_after_another(has: Resources, each: Resources, most: int) -> None:
    taken = 0
    while taken < most and has.covers(each):
        has -= each
        taken += 1
    assert (has + each.times(taken)).holds(each, most) == taken
