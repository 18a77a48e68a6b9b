"""A job runs on while the release under it is upgraded, rolled back and removed; and one command removes everything."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from builders.chart import CHART, NAMESPACE, RELEASE, Helm, Parts
from builders.live import Live

if TYPE_CHECKING:
    from helm.conftest import AuditedCluster

pytestmark = pytest.mark.cluster

OPTIONS = ("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "120s")
DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/dljobs.muster.dev"
REMOVE_ALL = (
    "kubectl delete dljobs --all --all-namespaces --cascade=foreground"
    " && kubectl delete crd dljobs.muster.dev dlqueues.muster.dev"
)
"""As NOTES.txt and docs/install.md have it. Jobs first: the garbage collector forgets the pods of a kind that is gone."""


@pytest.fixture
def team(audited: AuditedCluster) -> Live:
    """A user's namespace; the test itself removes it."""
    audited.create_namespace("team-of-the-upgrade")
    return Live(audited, "team-of-the-upgrade")


@pytest.fixture
def parts(audited: AuditedCluster) -> Iterator[Parts]:
    """muster's parts; stopped in the end."""
    found = Parts(audited)
    yield found
    stop(found)


def start(parts: Parts) -> None:
    parts.start_scheduler(parts.start_extender())
    parts.start_operator()


def stop(parts: Parts) -> None:
    for name in ("operator", "scheduler", "extender"):
        parts.stop(name)


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The chart of a later version, in which the status of a DLJob has one more field."""
    chart = tmp_path / "muster"
    shutil.copytree(CHART, chart)
    about = chart / "Chart.yaml"
    about.write_text(about.read_text().replace("version: 0.1.0", "version: 0.2.0"))
    path = chart / "files/crds/muster.dev_dljobs.yaml"
    definition = yaml.safe_load(path.read_text())
    status_of(definition)["properties"]["news"] = {"type": "string"}
    path.write_text(yaml.safe_dump(definition))
    return chart


def status_of(definition: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of the status in a definition of DLJobs."""
    found: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return found


def test_a_job_runs_on_whatever_happens_to_the_release(
    audited: AuditedCluster, cluster_helm: Helm, team: Live, parts: Parts, newer: Path
) -> None:
    def has_news() -> bool:
        return "news" in status_of(audited.api.get(DEFINITION))["properties"]

    def runs_on() -> None:
        assert uids() == before
        assert (team.status("long")["phase"], team.status("long")["attempt"]) == ("Running", 1)

    def uids() -> dict[str, str]:
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in team.pods("long")}

    cluster_helm("install", RELEASE, CHART, *OPTIONS)
    start(parts)
    team.job("long", 2, 2)
    team.wait_running("long", 2)
    before = uids()
    assert not has_news()

    cluster_helm("upgrade", RELEASE, newer, *OPTIONS, "--set", "operator.preemption=false")
    assert has_news(), "an upgrade brings the definitions"
    stop(parts)
    start(parts)
    runs_on()
    team.job("later", 2, 1)
    team.wait_running("later", 2)

    cluster_helm("rollback", RELEASE, "1", "--namespace", NAMESPACE, "--wait", "--timeout", "120s")
    assert not has_news()
    stop(parts)
    start(parts)
    team.job("last", 2, 1)
    team.wait_running("last", 2)
    runs_on()

    stop(parts)
    cluster_helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "120s")
    runs_on()

    for command in REMOVE_ALL.split(" && "):
        audited.kubectl(*command.split()[1:])
    assert not team.pods()
    assert not audited.exists(DEFINITION)
    audited.api.delete(f"/api/v1/namespaces/{team.namespace}")
    audited.wait(lambda: not audited.exists(f"/api/v1/namespaces/{team.namespace}"), "nothing holds the namespace back")


def test_the_command_that_removes_all_is_documented() -> None:
    assert REMOVE_ALL in (CHART / "templates/NOTES.txt").read_text()
    assert REMOVE_ALL in (CHART.parents[1] / "docs/install.md").read_text()
