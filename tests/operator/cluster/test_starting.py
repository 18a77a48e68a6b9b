"""Gangs that cannot start: nobody else pays for them, their users are told why, and one command brings them back.

kwok lets every pod run. So some pods are on a node that kwok has given up, and `Kubelet` says what becomes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from builders.live import Json, Live, template
from muster.api import names
from muster.kube.errors import NotFound

pytestmark = pytest.mark.cluster

MISSING = "no/missing"


@dataclass
class Kubelet:
    """What becomes of the pods of one node: an image that is missing cannot be pulled, other pods run, deleted ones go."""

    live: Live
    node: str

    def wait(self, true: Callable[[], object], what: str) -> None:
        """Wait until something holds, at work meanwhile."""

        def holds() -> object:
            self._work()
            return true()

        self.live.wait(holds, what)

    def _work(self) -> None:
        for pod in self.live.pods():
            if pod["spec"].get("nodeName") != self.node:
                continue
            path = self.live.path("pods", pod["metadata"]["name"])
            if "deletionTimestamp" in pod["metadata"]:
                with suppress(NotFound):
                    self.live.cluster.api.delete(path, grace_seconds=0)
            elif not pod["status"].get("containerStatuses"):
                self.live.cluster.api.patch(f"{path}/status", {"status": self._report(pod)})

    def _report(self, pod: Json) -> Json:
        missing = pod["spec"]["containers"][0]["image"] == MISSING
        waits = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
        state = waits if missing else {"running": {"startedAt": pod["metadata"]["creationTimestamp"]}}
        container = {"name": "train", "image": "train", "imageID": "", "ready": not missing, "restartCount": 0, "state": state}
        return {"phase": "Pending" if missing else "Running", "containerStatuses": [container]}


@pytest.fixture
def kubelet(live: Live) -> Iterator[Kubelet]:
    """The kubelet of a node of the test's own with eight GPUs; kwok has it again after the test."""
    (node,) = live.add_nodes(1)
    live.cluster.silence_node(node)
    yield Kubelet(live, node)
    live.cluster.revive_node(node)


def job(live: Live, name: str, gpus: int, *, image: str = "train", limits: Json | None = None, **spec: Any) -> None:
    """Create a DLJob of one worker on the test's own nodes."""
    made = template(gpus, pool=live.namespace)
    container = made["spec"]["containers"][0]
    container |= {"image": image, "resources": {"limits": {names.GPU: gpus} | (limits or {})}}
    live.create("dljobs", {"metadata": {"name": name}, "spec": {"roles": {"worker": {"template": made}}, **spec}})


def test_gang_that_hangs_is_set_aside_with_its_cause_and_comes_back_on_demand(live: Live) -> None:
    live.add_nodes(1)
    live.job("hangs", 2, 4, pool=live.namespace, hold=True, startDeadlineSeconds=1, startRetries=0)
    status = live.wait_phase("hangs", "Suspended")
    assert live.condition("hangs", "Suspended")["reason"] == "StartRetriesExceeded"
    assert "has not started within 1 s, like 1 other" in status["message"]
    assert live.told("hangs", "set aside after 1 start that failed; the last: pod hangs-worker-0 on node")
    live.wait_nothing_held("hangs")
    live.patch("dljobs", "hangs", {"spec": {"startDeadlineSeconds": 600}})
    live.annotate("dljobs", "hangs", suspend="false")
    live.wait_pods(2, "Pending", "hangs")
    live.let_run("hangs")
    assert "failedStart" not in live.wait_running("hangs", 2)


def test_nobody_makes_way_for_a_gang_that_asks_for_what_no_node_has(live: Live) -> None:
    live.add_nodes(1)
    job(live, "low", 8)
    live.wait_running("low", 1)
    job(live, "high", 8, limits={"rdma/hcaa": 1}, priority=100)
    live.wait_reason("high", "NeverFits")
    assert live.status("low").get("requeues", 0) == 0


def test_gang_goes_to_the_node_that_has_its_card(live: Live) -> None:
    nodes = live.add_nodes(3)
    live.cluster.api.patch(f"/api/v1/nodes/{nodes[2]}/status", {"status": {"allocatable": {"rdma/hca": "8"}}})
    job(live, "card", 4, limits={"rdma/hca": 1})
    live.wait_running("card", 1)
    assert (live.nodes_of("card"), live.status("card")["attempt"]) == ({nodes[2]}, 1)


def test_gang_whose_image_is_missing_takes_the_place_of_another_once(live: Live, kubelet: Kubelet) -> None:
    job(live, "low", 8)
    kubelet.wait(lambda: live.status("low").get("phase") == "Running", "low runs")
    job(live, "high", 8, image=MISSING, priority=100)
    kubelet.wait(lambda: live.status("high").get("failedStart"), "high has failed to start")
    kubelet.wait(lambda: live.status("low").get("phase") == "Running", "low runs again")
    kubelet.wait(
        lambda: live.condition("high", "Admitted").get("reason") == "InsufficientGPUs", "high waits, its back-off over"
    )
    low, failed = live.status("low"), live.status("high")["failedStart"]
    assert (low["phase"], low["requeues"]) == ("Running", 1)
    assert (failed["reason"], failed["pod"], failed["times"]) == ("PodStartFailed", "high-worker-0", 1)
    assert "container train: ImagePullBackOff" in failed["message"]


def test_labelled_gang_with_one_image_missing_frees_the_gpus_of_the_others(live: Live, kubelet: Kubelet) -> None:
    live.member("g0", 4, "g", 2, pool=live.namespace)
    missing = {"name": "train", "image": MISSING, "resources": {"limits": {names.GPU: 4}}}
    live.member("g1", 4, "g", 2, pool=live.namespace, containers=[missing])

    def waiting(pod: str) -> str:
        found = next((each for each in live.pods() if each["metadata"]["name"] == pod), None)
        return str((found or {}).get("metadata", {}).get("annotations", {}).get(names.WAITING))

    words = "the last start failed: pod g1 cannot start: container train: ImagePullBackOff"
    kubelet.wait(lambda: words in waiting("g0") and words in waiting("g1"), "both wait, and are told why")
    job(live, "other", 8)
    kubelet.wait(lambda: live.status("other").get("phase") == "Running", "another runs on their GPUs")
