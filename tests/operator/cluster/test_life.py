"""A DLJob from submission to its end."""

from __future__ import annotations

from itertools import groupby

import pytest

from builders.live import Json, Live, template
from muster.api import names

pytestmark = pytest.mark.cluster


def test_gang_is_admitted_ranked_and_runs_to_its_end(live: Live) -> None:
    live.job("vgg", 6, 2, pool=live.namespace)
    live.add_nodes(2, "dgx-a100")
    status = live.wait_running("vgg", 6)

    places = sorted(status["placement"], key=lambda place: place["rank"])
    assert [place["rank"] for place in places] == list(range(6))
    runs = [node for node, _ in groupby(places, key=lambda place: place["node"])]
    assert len(runs) == len(set(runs)) == 2, "neighbours in rank share a node"
    held = [(place["node"], gpu) for place in places for gpu in place["gpus"]]
    assert len(held) == len(set(held)) == 12
    assert status["gpus"] == 12
    assert (status["replicas"], status["attempt"]) == (6, 1)
    assert live.condition("vgg", "Admitted")["status"] == live.condition("vgg", "Running")["status"] == "True"
    for pod, place in zip(live.pods("vgg"), sorted(places, key=lambda place: place["pod"]), strict=True):
        check_pod(live, pod, place, places[0]["pod"])
    service = live.get("services", "vgg")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["selector"] == {names.JOB: "vgg"}

    live.let_end("vgg")
    status = live.wait_phase("vgg", "Succeeded")
    assert live.timeline("vgg") == ["Queued", "Admitted", "Running", "Succeeded"]
    assert not status.get("placement")
    assert status["finishedAt"] >= status["startedAt"] >= status["queuedAt"]
    assert live.condition("vgg", "Succeeded")["status"] == "True"
    assert live.condition("vgg", "Running")["status"] == "False"
    live.wait_nothing_held("vgg")
    assert len(live.pods("vgg")) == 6, "finished pods stay for their logs"


def check_pod(live: Live, pod: Json, place: Json, first: str) -> None:
    meta, spec = pod["metadata"], pod["spec"]
    assert meta["annotations"][names.RANK] == str(place["rank"])
    assert meta["annotations"][names.GPUS] == ",".join(map(str, place["gpus"]))
    assert meta["annotations"][names.ATTEMPT] == "1"
    assert meta["labels"][names.ROLE] == "worker"
    assert spec["schedulerName"] == names.SCHEDULER
    assert (spec["hostname"], spec["subdomain"]) == (place["pod"], "vgg")
    env = {entry["name"]: entry["value"] for entry in spec["containers"][0]["env"]}
    assert env["PET_MASTER_ADDR"] == f"{first}.vgg.{live.namespace}.svc"
    assert (env["PET_NNODES"], env["PET_NPROC_PER_NODE"], env["PET_NODE_RANK"]) == ("6", "2", str(place["rank"]))
    term = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"][0]
    assert term["matchFields"] == [{"key": "metadata.name", "operator": "In", "values": [place["node"]]}]


def test_printed_columns_show_phase_gpus_and_reason(live: Live) -> None:
    live.job("runs", 1, 4)
    live.job("waits", 100, 8, priority=-5)
    live.wait_running("runs", 1)
    live.wait_reason("waits", "NeverFits")

    def row(name: str) -> dict[str, str]:
        table = live.cluster.kubectl("get", "dlj", name, "-n", live.namespace, "-o", "wide").splitlines()
        starts = [table[0].index(title) for title in table[0].split()]
        return {table[0][a:].split()[0]: table[1][a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)}

    runs, waits = row("runs"), row("waits")
    assert (runs["PHASE"], runs["GPUS"], runs["WANTED"], runs["QUEUE"]) == ("Running", "4", "4", "default")
    assert runs["NODES"] == live.pods("runs")[0]["spec"]["nodeName"]
    assert runs["MESSAGE"] == "1 pod running, the whole gang"
    assert runs["STARTED"]
    assert (waits["PHASE"], waits["GPUS"], waits["WANTED"], waits["NODES"]) == ("Queued", "0", "800", "")
    assert (waits["STARTED"], waits["PRIORITY"]) == ("", "-5")
    assert waits["MESSAGE"].startswith("needs 800 GPUs")
    assert "with nobody else running" in waits["MESSAGE"]


def test_template_that_can_never_be_a_pod_fails_the_job_with_the_servers_words(live: Live) -> None:
    container = {"name": "Not A Name", "image": "x", "resources": {"limits": {names.GPU: 1}}}
    roles = {"worker": {"replicas": 2, "template": {"spec": {"containers": [container]}}}}
    live.create("dljobs", {"metadata": {"name": "bad"}, "spec": {"roles": roles}})
    status = live.wait_phase("bad", "Failed")
    failed = live.condition("bad", "Failed")
    assert failed["reason"] == "InvalidTemplate"
    assert "containers[0].name" in failed["message"]
    assert "Not A Name" in failed["message"]
    assert not status.get("placement")
    assert not live.pods()


def test_template_with_a_misspelt_field_fails_the_job_with_its_path(live: Live) -> None:
    live.create(
        "dljobs", {"metadata": {"name": "typo"}, "spec": {"roles": {"worker": {"template": template(1, nodeSelectr={})}}}}
    )
    live.wait_phase("typo", "Failed")
    message = live.condition("typo", "Failed")["message"]
    assert message.startswith("roles.worker.template: ")
    assert 'unknown field "spec.nodeSelectr"' in message
    assert not live.pods()


def test_gang_with_a_failed_pod_restarts_until_the_limit(live: Live) -> None:
    live.job("brittle", 2, 1, backoffLimit=1)
    live.wait_running("brittle", 2)
    live.fail("brittle-worker-1")
    live.wait(lambda: live.status("brittle").get("restarts") == 1, "the failure is counted")
    assert "exited with 3" in next(e["message"] for e in live.status("brittle")["timeline"] if e["event"] == "Restarting")
    live.wait(lambda: live.status("brittle")["attempt"] == 2, "it is placed again")
    live.wait_running("brittle", 2)

    live.fail("brittle-worker-0")
    live.wait_phase("brittle", "Failed")
    failed = live.condition("brittle", "Failed")
    assert failed["reason"] == "BackoffLimitExceeded"
    assert "1 of 1 restart used" in failed["message"]
    live.wait_nothing_held("brittle")


def test_gang_over_a_resource_quota_waits_until_it_fits(live: Live) -> None:
    live.create("resourcequotas", {"metadata": {"name": "two"}, "spec": {"hard": {"pods": "2"}}})
    live.wait(lambda: live.get("resourcequotas", "two").get("status", {}).get("hard"), "the quota is in force")
    live.job("three", 3, 1)
    message = live.wait_reason("three", "ExceedsResourceQuota")
    assert message == f"needs 3 pods; ResourceQuota {live.namespace}/two allows no more than 2"
    assert live.status("three").get("attempt", 0) == 0

    live.delete("resourcequotas", "two")
    live.wait_running("three", 3)


def test_gang_whose_service_is_over_quota_waits_until_it_fits(live: Live) -> None:
    live.create("resourcequotas", {"metadata": {"name": "none"}, "spec": {"hard": {"services": "0"}}})
    live.wait(lambda: live.get("resourcequotas", "none").get("status", {}).get("hard"), "the quota is in force")
    live.job("three", 3, 1)
    message = live.wait_reason("three", "ExceedsResourceQuota")
    assert message == f"needs 1 services; ResourceQuota {live.namespace}/none allows no more than 0"
    assert live.status("three").get("attempt", 0) == 0

    live.delete("resourcequotas", "none")
    live.wait_running("three", 3)


def test_limit_range_rejects_and_defaults_are_respected(live: Live) -> None:
    """Its maximum refuses the template, in the API server's words; its defaults are in the pods of those that it allows."""
    limit = {"type": "Container", "max": {names.GPU: "2"}, "default": {"memory": "1Gi"}}
    live.create("limitranges", {"metadata": {"name": "small"}, "spec": {"limits": [limit]}})
    live.job("large", 2, 4)
    assert "maximum nvidia.com/gpu usage per Container is 2" in live.wait_reason("large", "TemplateRejected")
    assert not live.pods("large")
    live.job("small", 2, 2)
    live.wait_running("small", 2)
    assert live.pods("small")[0]["spec"]["containers"][0]["resources"]["limits"]["memory"] == "1Gi"
    live.delete("limitranges", "small")
    live.wait_running("large", 2)


def test_gang_whose_defaults_exceed_a_quota_waits_without_pods(live: Live) -> None:
    """The LimitRange gives its containers what the template does not ask for. Nobody makes way for it."""
    live.job("runs", 4, 8)
    live.wait_running("runs", 4)
    limit = {"type": "Container", "default": {"cpu": "600m"}}
    live.create("limitranges", {"metadata": {"name": "cpu"}, "spec": {"limits": [limit]}})
    live.create("resourcequotas", {"metadata": {"name": "one"}, "spec": {"hard": {"requests.cpu": "1"}}})
    live.wait(lambda: live.get("resourcequotas", "one").get("status", {}).get("hard"), "the quota is in force")
    live.job("urgent", 2, 8, priority=5)
    message = live.wait_reason("urgent", "ExceedsResourceQuota")
    assert message == f"needs 1200m requests.cpu; ResourceQuota {live.namespace}/one allows no more than 1"
    assert not live.pods("urgent")
    assert (live.status("urgent").get("attempt", 0), live.status("runs")["attempt"]) == (0, 1)
    live.patch("resourcequotas", "one", {"spec": {"hard": {"requests.cpu": "2"}}})
    live.wait_running("urgent", 2)
    assert live.pods("urgent")[0]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "600m"
