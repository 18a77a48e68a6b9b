"""Expected rates: measured before learned before assumed, never better with slower links, and lower beside neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pytest

from builders.cluster import cluster, gang, node, running
from muster.scheduling.gang import Gang, Sensitivity
from muster.scheduling.occupancy import Occupancy
from muster.scheduling.profile import NO_NEIGHBOURS, CoLocation, Profile, Shape, Via
from muster.scheduling.speed.interference import Interference, packing_loss
from muster.scheduling.speed.rates import Rates
from muster.scheduling.topology.links import gpu_set
from muster.scheduling.topology.machine import machine_type
from muster.scheduling.topology.node import Node

PAIRS = machine_type(
    [["X", "PIX", "SYS", "SYS"], ["PIX", "X", "SYS", "SYS"], ["SYS", "SYS", "X", "PIX"], ["SYS", "SYS", "PIX", "X"]]
)
NODES = cluster(*(node(f"n{i}", machine=PAIRS, model="P100", nic_gbps=5.0) for i in range(3)))
INF = float("inf")
ONE = Shape("P100", (1,), INF)
SWITCH, SOCKETS = Shape("P100", (2,), 12.0), Shape("P100", (2,), 6.0)
APART = Shape("P100", (1, 1), INF, 2.25)
FOUR, HALVES = Shape("P100", (4,), 6.0), Shape("P100", (2, 2), 12.0, 2.25)
QUARTERS = Shape("P100", (1, 1, 1, 1), INF, 2.25)


def rates(nodes: Mapping[str, Node] = NODES, **profiles: Profile) -> Rates:
    return Rates(profiles, nodes)


def measured(*points: tuple[Shape, float], **fields: float) -> Profile:
    """A profile of a kind that always ran alone."""
    return Profile({(shape, NO_NEIGHBOURS): rate for shape, rate in points}, **fields)


def of(kind: str, gpus: int = 2, sensitivity: Sensitivity = Sensitivity.AUTO) -> Gang:
    return gang(f"job-{kind}", gpus, kind=kind, sensitivity=sensitivity)


def beside(via: Via, *kinds: str) -> CoLocation:
    return tuple((via, kind) for kind in sorted(kinds))


# Locality


def test_measured_rate_is_taken_as_it_is() -> None:
    known = rates(k=measured((SWITCH, 10.0), (SOCKETS, 11.0)))
    assert known.expected(of("k"), SWITCH) == 10.0
    assert known.expected(of("k"), SOCKETS) == 11.0, "even where the law says that it cannot be"


def test_kind_never_measured_has_no_expected_rate() -> None:
    assert rates().expected(of("k"), SWITCH) is None
    assert rates(k=Profile(model_mb=100.0)).expected(of("k"), SWITCH) is None


def test_large_model_is_expected_to_suffer_more_than_a_small_one() -> None:
    known = rates(vgg16=Profile(model_mb=528.0), resnet50=Profile(model_mb=98.0))
    vgg16, resnet50 = (known.relative(of(kind), SOCKETS) for kind in ("vgg16", "resnet50"))
    assert vgg16 < 0.9 < 0.95 < resnet50 < 1.0


def test_declared_sensitivity_holds_until_measured_otherwise() -> None:
    high, low, auto = (of("k", sensitivity=s) for s in (Sensitivity.HIGH, Sensitivity.LOW, Sensitivity.AUTO))
    unknown = rates()
    assert unknown.relative(high, APART) < unknown.relative(auto, APART) < unknown.relative(low, APART) == 1.0
    learned = rates(k=measured((SWITCH, 10.0), (SOCKETS, 6.0)))
    assert learned.relative(low, SOCKETS) == pytest.approx(0.6)
    assert learned.relative(low, APART) < 0.6, "and what was learned holds for shapes that were not tried"


def test_measured_insensitivity_beats_a_large_model() -> None:
    prior = rates(k=measured((SWITCH, 10.0), model_mb=528.0))
    learned = rates(k=measured((SWITCH, 10.0), (SOCKETS, 10.0), model_mb=528.0))
    assert prior.relative(of("k"), APART) < 0.9
    assert learned.relative(of("k"), APART) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "profile", [Profile(), Profile(model_mb=300.0), measured((FOUR, 8.0)), measured((FOUR, 8.0), (HALVES, 6.0))]
)
def test_slower_links_and_more_nodes_are_never_better(profile: Profile) -> None:
    known = rates(k=profile)
    assert known.relative(of("k"), SWITCH) == 1.0
    for shapes in ((SWITCH, Shape("P100", (2,), 10.0), SOCKETS, APART), (FOUR, HALVES, QUARTERS)):
        found = [known.relative(of("k"), shape) for shape in shapes]
        assert all(0.0 < worse <= better for better, worse in pairwise(found)), found


# Numbers and models of GPUs


def test_speed_up_is_learned_and_diminishes() -> None:
    eight = cluster(node("n", model="P100"))
    shapes = [Shape("P100", (n,), INF if n == 1 else 6.0) for n in range(1, 9)]
    known = rates(eight, k=measured((shapes[0], 9.3), (shapes[1], 14.0), (shapes[3], 18.2)))
    found = [known.expected(of("k", n), shape) or 0.0 for n, shape in enumerate(shapes, start=1)]
    assert found[:2] + found[3:4] == [9.3, 14.0, 18.2]
    gains = [later - sooner for sooner, later in pairwise(found)]
    assert all(gain > 0 for gain in gains)
    assert all(later < sooner for sooner, later in zip(gains[:1] + gains[3:], gains[4:], strict=False))
    unknown = rates(eight, k=measured((shapes[0], 9.3)))
    assert 14.0 < (unknown.expected(of("k"), shapes[1]) or 0.0) <= 18.6, "no rate grows more than the number of GPUs"


def test_speed_of_a_gpu_model_is_measured_of_the_kind_else_of_others() -> None:
    mixed = cluster(node("new", model="P100"), node("old", model="P40"))
    old = Shape("P40", (1,), INF)
    known = rates(mixed, slow=measured((ONE, 10.0), (old, 5.0)), new=measured((ONE, 4.0)))
    assert known.relative(of("slow", 1), old) == pytest.approx(0.5)
    assert known.expected(of("new", 1), old) == pytest.approx(2.0)
    assert known.relative(of("nobody-knows", 1), old) == pytest.approx(0.5)
    own = rates(mixed, slow=measured((ONE, 10.0), (old, 5.0)), even=measured((ONE, 4.0), (old, 4.0)))
    assert own.relative(of("even", 1), old) == 1.0
    assert known.relative(of("slow", 2), Shape("P100+P40", (1, 1), INF, 5.4)) <= 0.5, "the slowest holds up the others"


# Interference


def test_measured_neighbour_beats_the_prediction() -> None:
    apart = rates(lm=Profile(model_mb=252.0), rn=Profile(model_mb=98.0))
    assert (
        apart.relative(of("lm", 1), ONE, beside(Via.SWITCH, "lm"))
        < apart.relative(of("lm", 1), ONE, beside(Via.SWITCH, "rn"))
        < 1
    )
    harmless = {(ONE, NO_NEIGHBOURS): 10.0, (ONE, beside(Via.SWITCH, "lm")): 10.0}
    assert rates(lm=Profile(harmless, model_mb=252.0)).relative(of("lm", 1), ONE, beside(Via.SWITCH, "lm")) == 1.0


def test_losses_to_several_neighbours_add_up() -> None:
    one, two = beside(Via.NIC, "b"), beside(Via.NIC, "b", "c")
    profile = Profile({(APART, NO_NEIGHBOURS): 10.0, (APART, one): 10.0 / 1.3, (APART, two): 10.0 / 1.5})
    losses = Interference({"a": profile})
    assert losses.added("a", one, 0.0) == pytest.approx(0.3)
    assert losses.added("a", two, 0.0) == pytest.approx(0.5)
    assert losses.added("a", beside(Via.NIC, "b", "b"), 0.0) == pytest.approx(0.6)
    assert losses.added("a", beside(Via.NIC, "c"), 0.0) == pytest.approx(0.2), "what b leaves of the total"


def test_kinds_that_never_met_are_judged_by_what_each_did_to_others() -> None:
    def met(*losses: tuple[str, float]) -> Profile:
        return Profile(
            {(ONE, NO_NEIGHBOURS): 1.0, **{(ONE, beside(Via.SWITCH, kind)): 1 / (1 + loss) for kind, loss in losses}}
        )

    known = Interference(
        {"touchy": met(("rowdy", 0.4)), "stoic": met(("rowdy", 0.0)), "third": met(("quiet", 0.0), ("rowdy", 0.1))}
    )
    assert known.added("stoic", beside(Via.SWITCH, "newcomer"), 0.0) == 0.0
    assert known.added("touchy", beside(Via.SWITCH, "quiet"), 0.0) == 0.0
    assert known.added("touchy", beside(Via.SWITCH, "newcomer"), 0.0) > 0.1
    assert known.added("newcomer", beside(Via.SWITCH, "rowdy"), 0.0) > 0.1


def test_loss_by_packing_is_told_from_loss_under_the_switch() -> None:
    crowd = ((Via.GPU, "b"), (Via.SWITCH, "c"))
    profile = Profile({(ONE, NO_NEIGHBOURS): 10.0, (ONE, ((Via.SWITCH, "c"),)): 10.0, (ONE, crowd): 5.0}, utilisation=0.1)
    known = rates(a=profile, b=Profile(utilisation=0.1))
    assert known.relative(of("a", 1), ONE, beside(Via.GPU, "b")) == pytest.approx(0.5)


def test_kind_never_alone_is_measured_against_its_best_neighbours() -> None:
    good, bad = beside(Via.SWITCH, "x"), beside(Via.SWITCH, "y")
    known = rates(a=Profile({(ONE, good): 10.0, (ONE, bad): 8.0}))
    assert known.relative(of("a", 1), ONE, good) == 1.0
    assert known.relative(of("a", 1), ONE, bad) == pytest.approx(0.8)


def test_kind_always_packed_is_taken_to_have_taken_turns() -> None:
    known = rates(a=Profile({(ONE, beside(Via.GPU, "b")): 4.0}))
    assert known.expected(of("a", 1), ONE, beside(Via.GPU, "b")) == 4.0
    assert known.expected(of("a", 1), ONE) == 8.0


def test_measured_co_location_beats_the_sum_of_its_neighbours() -> None:
    whole = beside(Via.NIC, "b", "c")
    losses = {beside(Via.NIC, "b"): 0.3, beside(Via.NIC, "c"): 0.3, whole: 1.5}
    profile = Profile(
        {(APART, NO_NEIGHBOURS): 1.0, **{(APART, co_location): 1 / (1 + loss) for co_location, loss in losses.items()}}
    )
    assert Interference({"a": profile}).added("a", whole, 0.0) == pytest.approx(1.5)


def test_busier_pairs_lose_more_and_idle_ones_nothing() -> None:
    losses = [packing_loss(utilisation / 10) for utilisation in range(0, 31)]
    assert losses[0] == 0.0
    assert all(sooner < later for sooner, later in pairwise(losses))
    assert 2 / (1 + packing_loss(1.125)) == pytest.approx(1.85), "Lucid's median between 100 and 125 %"


def test_shared_network_cards_cost_only_gangs_that_use_them() -> None:
    known = rates(large=Profile(model_mb=528.0))
    co_location = beside(Via.NIC, "other")
    low = of("k", sensitivity=Sensitivity.LOW)
    assert known.relative(of("large"), APART, co_location) < 0.85 * known.relative(of("large"), APART)
    assert known.relative(low, APART, co_location) == 1.0


# The worth of placements


def best_gpu(known: Rates, arriving: Gang, others: list[Gang], free: Mapping[str, list[int]]) -> tuple[str, int]:
    worth = {
        (name, gpu): known.worth(arriving, {name: gpu_set([gpu])}, Occupancy(others))
        for name, gpus in free.items()
        for gpu in gpus
    }
    return max(worth, key=lambda spot: (worth[spot], spot))


def test_worth_of_a_placement_counts_what_neighbours_lose() -> None:
    """Kind "rude" loses nothing beside kind "meek", which loses half."""
    rude = Profile({(ONE, NO_NEIGHBOURS): 1.0, (ONE, beside(Via.SWITCH, "meek")): 1.0, (ONE, beside(Via.SWITCH, "stoic")): 1.0})
    meek = Profile({(ONE, NO_NEIGHBOURS): 1.0, (ONE, beside(Via.SWITCH, "rude")): 0.5})
    stoic = Profile({(ONE, NO_NEIGHBOURS): 1.0, (ONE, beside(Via.SWITCH, "rude")): 1.0})
    known = rates(rude=rude, meek=meek, stoic=stoic)
    others = [running("meek-0", ("n0", [3]), kind="meek"), running("stoic-0", ("n0", [0]), kind="stoic")]
    newcomer = of("rude", 1)
    assert best_gpu(known, newcomer, others, {"n0": [1, 2]}) == ("n0", 1)
    assert known.worth(newcomer, {"n0": gpu_set([2])}, Occupancy(others)) == pytest.approx(0.5)
    assert known.worth(newcomer, {"n0": gpu_set([1])}, Occupancy(others)) == pytest.approx(1.0)


def test_moving_gang_is_not_its_own_neighbour() -> None:
    known = rates(lm=Profile(model_mb=252.0))
    here = running("a", ("n0", [0]), kind="lm")
    other = running("b", ("n0", [1]), kind="lm")
    staying = known.worth(here, {"n0": gpu_set([0])}, Occupancy([here, other]))
    leaving = known.worth(here, {"n0": gpu_set([2])}, Occupancy([here, other]))
    assert staying == known.worth(here, {"n0": gpu_set([0])}, Occupancy([other])) < leaving == 1.0


def test_gangs_of_one_node_meet_at_a_switch_and_spread_ones_at_the_network_cards() -> None:
    spread = running("spread", ("n0", [0]), ("n1", [0]))
    other = running("other", ("n0", [1]), ("n1", [1]))
    single = running("single", ("n0", [1]))
    gpus = {"n0": gpu_set([0]), "n1": gpu_set([0])}
    assert Occupancy([other]).co_location(spread.name, gpus, NODES) == ((Via.NIC, other.profile_name),)
    assert Occupancy([single]).co_location(spread.name, gpus, NODES) == ((Via.SWITCH, single.profile_name),)


def test_order_of_the_profiles_makes_no_difference() -> None:
    """Not even in the last digit, by which one of two equal moves would seem better."""
    known = {
        f"k{i}": Profile({(ONE, NO_NEIGHBOURS): 1.0 + i / 7, (ONE, beside(Via.GPU, "other")): 0.7 / (i + 1)}, utilisation=0.5)
        for i in range(7)
    }
    turned = dict(reversed(known.items()))
    co_location = beside(Via.GPU, "other")
    assert Rates(known, NODES).expected(of("new"), ONE, co_location) == Rates(turned, NODES).expected(
        of("new"), ONE, co_location
    )
    known |= {"new": measured((ONE, 1.0))}
    turned |= {"new": measured((ONE, 1.0))}
    assert Rates(known, NODES).expected(of("new"), ONE, co_location) == Rates(turned, NODES).expected(
        of("new"), ONE, co_location
    )
