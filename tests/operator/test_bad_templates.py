"""A template that is wrong deep inside ends its job with a phase and the reason, at once and for good; others start."""

from __future__ import annotations

from typing import Any

import pytest

from builders.dljobs import Json, roles, template
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths
from muster.scheduling.topology.eligibility import Toleration
from muster_operator.dljob.decoding import MOST_BYTES, MOST_PARTS

WHOLE = roles(workers=1, gpus=4)


def worker(**spec: Any) -> Json:
    return {"worker": {"replicas": 1, "template": template(1, **spec)}}


def container(**fields: Any) -> Json:
    return worker(containers=[{"name": "train", "resources": {"limits": {names.GPU: 1}}, **fields}])


UNREADABLE = {
    "an amount": container(resources={"limits": {names.GPU: 1, "cpu": "lots"}}),
    "an endless amount": container(resources={"limits": {names.GPU: 1, "memory": "1" * 5000}}),
    "an affinity": worker(affinity=5),
    "tolerations": worker(tolerations=[{"key": 5}]),
    "an overhead": worker(overhead={"cpu": "much"}),
    "volumes": worker(volumes=5),
    "a claim": worker(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": 5}}]),
    "too much": worker(volumes=[{"name": "x" * MOST_BYTES}]),
    "too many tolerations": worker(tolerations=[{"key": f"k{number}", "operator": "Exists"} for number in range(MOST_PARTS)]),
}
NOT_MADE = {
    "variables": container(env=[5]),
    "mounts": container(volumeMounts=["data"]),
    "labels": {"worker": {"replicas": 1, "template": {**template(1), "metadata": {"labels": [1]}}}},
}


@pytest.mark.parametrize("bad", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_template_that_cannot_be_read_ends_its_job_and_costs_nothing_more(
    harness: OperatorHarness, bad: Json, caplog: pytest.LogCaptureFixture
) -> None:
    harness.submit("bad", roles=bad)
    harness.submit("good", roles=WHOLE)
    await harness.turn(4)
    assert harness.status("good")["phase"] == "Admitted"
    assert (harness.status("bad")["phase"], harness.admitted("bad")[0]) == ("Failed", "Finished")
    failed = next(condition for condition in harness.status("bad")["conditions"] if condition["type"] == "Failed")
    assert failed["reason"] == "InvalidTemplate"
    assert len(failed["message"]) > 20
    asked = len(harness.server.asked)
    await harness.turn(5, seconds=60)
    assert len(harness.server.asked) == asked
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("bad", NOT_MADE.values(), ids=NOT_MADE.keys())
async def test_template_of_which_no_pod_can_be_made_ends_its_job_in_the_api_servers_words(
    harness: OperatorHarness, bad: Json, caplog: pytest.LogCaptureFixture
) -> None:
    harness.server.refuse("POST", paths.pods(SPACE), 400, "json: cannot unmarshal number into Go struct field")
    harness.submit("bad", roles=bad)
    await harness.turn(3)
    harness.submit("good", roles=WHOLE)
    await harness.turn(3)
    assert harness.status("bad")["phase"] == "Failed"
    assert "json: cannot unmarshal" in harness.status("bad")["message"]
    assert harness.status("good")["phase"] == "Admitted"
    assert not [record for record in caplog.records if record.exc_info]


async def test_long_template_of_a_job_that_holds_gpus_is_read(harness: OperatorHarness) -> None:
    harness.submit(roles=WHOLE)
    await harness.turn(3)
    longer = {"worker": {**WHOLE["worker"], "template": template(4, volumes=[{"name": "x" * MOST_BYTES}])}}
    harness.change(paths.dljobs(SPACE, "vgg16"), spec={"roles": longer})
    await harness.turn(2)
    assert (harness.job().flaw, harness.status()["phase"]) == ("", "Admitted")


async def test_thousands_of_pods_with_the_longest_rules_are_hashed_and_compared_as_one(harness: OperatorHarness) -> None:
    """Seen: a job of 2,000 pods with 3,000 tolerations held the operator for 16 s, and for 2 s at each change of it."""
    hashes, plain = 0, Toleration.__hash__

    def hashed(rule: Toleration) -> int:
        nonlocal hashes
        hashes += 1
        return plain(rule)

    for number in range(8):
        harness.node(f"n{number}", 8)
    rules = [{"key": f"k{number}", "operator": "Exists"} for number in range(MOST_PARTS // 4 - 10)]
    harness.submit("long", roles={"worker": {"replicas": 2000, "template": template(1, tolerations=rules)}})
    harness.submit("good", roles=WHOLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Toleration, "__hash__", hashed)
        await harness.turn(3)
    assert harness.status("good")["phase"] == "Admitted"
    assert harness.admitted("long")[0] == "NeverFits"
    assert hashes < 20 * len(rules)


ENDLESS = {
    "memory": (
        container(resources={"limits": {names.GPU: 1, "memory": "1e999999999"}}),
        "containers[0].resources.limits.memory",
    ),
    "storage": (container(resources={"limits": {names.GPU: 1}, "requests": {"x.org/y": "1E-99999"}}), "requests.x.org/y"),
    "a size": (worker(volumes=[{"name": "v", "emptyDir": {"sizeLimit": ".5e+0012345"}}]), "volumes[0].emptyDir.sizeLimit"),
}


@pytest.mark.parametrize(("bad", "path"), ENDLESS.values(), ids=ENDLESS)
async def test_amount_that_the_api_server_would_calculate_for_ever_is_not_asked_about(
    harness: OperatorHarness, bad: Json, path: str
) -> None:
    harness.submit("bad", roles=bad)
    await harness.turn(3)
    assert harness.status("bad")["phase"] == "Failed"
    assert path in harness.status("bad")["message"]
    assert not [asked for asked in harness.server.asked if "/pods" in asked[1]]


async def test_text_that_only_looks_like_such_an_amount_is_none(harness: OperatorHarness) -> None:
    harness.submit("good", roles=container(env=[{"name": "SHA", "value": "12e4567"}], command=["1e999999999"]))
    await harness.turn(3)
    assert harness.status("good")["phase"] == "Admitted"


async def test_template_nested_thousands_deep_stops_nobody(harness: OperatorHarness) -> None:
    deep: Any = {}
    for _ in range(5_000):
        deep = {"a": deep}
    harness.submit("bad", roles=worker(volumes=[{"name": "v", "emptyDir": deep}]))
    harness.submit("good", roles=WHOLE)
    await harness.turn(4)
    assert harness.status("good")["phase"] == "Admitted"
    assert harness.status("bad").get("phase") in ("Failed", "Admitted")
