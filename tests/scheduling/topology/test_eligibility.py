"""Node selectors, affinity, taints and tolerations: the answers of kube-scheduler, case by case."""

from __future__ import annotations

import pytest

from muster.scheduling.topology.eligibility import ANYWHERE, Constraint, Requirement, Taint, Toleration

LABELS = {"zone": "a", "cores": "32", "odd": "many", "negative": "-3", "split": "1_0"}
DEDICATED = Taint("dedicated", "research", "NoSchedule")


@pytest.mark.parametrize(
    ("key", "operator", "values", "matches"),
    [
        ("zone", "In", ("a", "b"), True),
        ("zone", "In", ("b",), False),
        ("missing", "In", ("a",), False),
        ("zone", "NotIn", ("b",), True),
        ("zone", "NotIn", ("a",), False),
        ("missing", "NotIn", ("a",), True),  # as kube-scheduler: what has no such label is not in the list
        ("zone", "Exists", (), True),
        ("missing", "Exists", (), False),
        ("zone", "DoesNotExist", (), False),
        ("missing", "DoesNotExist", (), True),
        ("cores", "Gt", ("31",), True),
        ("cores", "Gt", ("32",), False),
        ("cores", "Lt", ("33",), True),
        ("cores", "Lt", ("32",), False),
        ("negative", "Lt", ("-2",), True),
        ("missing", "Gt", ("1",), False),
        ("missing", "Lt", ("1",), False),
        ("odd", "Gt", ("1",), False),
        ("odd", "Lt", ("1",), False),
        ("cores", "Gt", ("few",), False),
        ("cores", "Gt", ("1", "2"), False),
        ("cores", "Gt", (), False),
        ("split", "Gt", ("1",), False),  # Go reads no underscores
        ("zone", "Near", ("a",), False),
    ],
)
def test_requirement_matches_as_in_kube_scheduler(key: str, operator: str, values: tuple[str, ...], matches: bool) -> None:
    assert Requirement(key, operator, values).matches(LABELS) is matches


@pytest.mark.parametrize(
    ("toleration", "tolerates"),
    [
        (Toleration("dedicated", "Equal", "research", "NoSchedule"), True),
        (Toleration("dedicated", "", "research"), True),  # no operator is Equal
        (Toleration("dedicated", "Equal", "research"), True),
        (Toleration("dedicated", "Equal", "other"), False),
        (Toleration("dedicated"), False),
        (Toleration("dedicated", "Exists"), True),
        (Toleration("dedicated", "Exists", effect="NoExecute"), False),
        (Toleration("other", "Exists"), False),
        (Toleration(operator="Exists"), True),
        (Toleration(operator="Exists", effect="NoSchedule"), True),
        (Toleration(operator="Exists", effect="NoExecute"), False),
        (Toleration(value="research"), False),
        (Toleration("dedicated", "Lt", "research"), False),
    ],
)
def test_toleration_matches_as_in_kube_scheduler(toleration: Toleration, tolerates: bool) -> None:
    assert toleration.tolerates(DEDICATED) is tolerates
    assert Constraint(tolerations=(toleration,)).admits("n1", {}, (DEDICATED,)) is tolerates


@pytest.mark.parametrize(("effect", "admitted"), [("NoSchedule", False), ("NoExecute", False), ("PreferNoSchedule", True)])
def test_only_hard_taints_keep_a_task_away(effect: str, admitted: bool) -> None:
    assert ANYWHERE.admits("n1", {}, (Taint("k", "v", effect),)) is admitted


def test_every_taint_must_be_tolerated() -> None:
    other = Taint("other", "", "NoExecute")
    one = Constraint(tolerations=(Toleration("dedicated", "Exists"),))
    both = Constraint(tolerations=(Toleration("dedicated", "Exists"), Toleration("other", "Exists")))
    assert not one.admits("n1", {}, (DEDICATED, other))
    assert both.admits("n1", {}, (DEDICATED, other))


def test_every_label_of_the_selector_is_needed() -> None:
    assert Constraint(labels=(("zone", "a"), ("cores", "32"))).admits("n1", LABELS, ())
    assert not Constraint(labels=(("zone", "a"), ("cores", "16"))).admits("n1", LABELS, ())
    assert not Constraint(labels=(("missing", ""),)).admits("n1", LABELS, ())


def test_terms_are_alternatives_and_requirements_of_a_term_all_hold() -> None:
    zone, few = Requirement("zone", "In", ("a",)), Requirement("cores", "Lt", ("8",))
    assert Constraint(terms=((zone,), (few,))).admits("n1", LABELS, ())
    assert not Constraint(terms=((zone, few),)).admits("n1", LABELS, ())
    assert not Constraint(terms=((few,),)).admits("n1", LABELS, ())
    assert not Constraint(terms=((),)).admits("n1", LABELS, ())  # an empty term matches no node


def test_selector_and_terms_both_hold() -> None:
    both = Constraint(labels=(("zone", "b"),), terms=((Requirement("cores", "Exists"),),))
    assert not both.admits("n1", LABELS, ())


def test_every_volume_is_reached_from_one_of_its_places() -> None:
    zone, few = Requirement("zone", "In", ("a",)), Requirement("cores", "Lt", ("8",))
    assert Constraint(volumes=(((few,), (zone,)),)).admits("n1", LABELS, ())
    assert not Constraint(volumes=(((zone,),), ((few,),))).admits("n1", LABELS, ())
    assert not Constraint(terms=((few,),), volumes=(((zone,),),)).admits("n1", LABELS, ())
    assert not Constraint(volumes=((),)).admits("n1", LABELS, ())  # node affinity without terms matches no node


def test_node_may_be_required_by_name() -> None:
    named = Constraint(terms=((Requirement("metadata.name", "In", ("n1",)),),))
    assert named.admits("n1", {}, ())
    assert not named.admits("n2", {"metadata.name": "n1"}, ())
