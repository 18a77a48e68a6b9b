"""What an earlier job of the same name left: the later one says so, and runs as soon as it is gone."""

from __future__ import annotations

import pytest

from builders.live import Live

pytestmark = pytest.mark.cluster


def test_job_after_an_orphaning_delete_says_what_is_in_its_way(live: Live) -> None:
    live.add_nodes(1)
    live.job("again", 2, 3, pool=live.namespace)
    live.wait_running("again", 2)
    live.delete("dljobs", "again", propagation="Orphan")
    live.wait(lambda: not live.exists("dljobs", "again"), "the job is gone")

    live.job("other", 1, 3, pool=live.namespace)
    assert "2 free" in live.wait_reason("other", "InsufficientGPUs"), "the orphans keep their GPUs"
    live.job("again", 2, 1, pool=live.namespace)
    message = live.wait_reason("again", "NameTaken")
    assert f"(kubectl delete service -n {live.namespace} again)" in message
    live.wait(lambda: live.told("again", "--cascade=orphan"), "an event says so too")
    live.delete("services", "again")
    live.wait(lambda: "Pod" in live.status("again")["message"], "the pods are in its way")
    for pod in live.pods():
        live.delete("pods", pod["metadata"]["name"])
    live.wait_running("again", 2)
    live.wait_running("other", 1)
