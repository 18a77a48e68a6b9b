"""A job keeps running through upgrade, rollback and uninstall of the release; documented commands remove everything."""

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
"""The commands of NOTES.txt and docs/install.md. Jobs first: the garbage collector ignores pods of a removed kind."""


@pytest.fixture
def team(audited: AuditedCluster) -> Live:
    """A user's namespace; the test removes it."""
    audited.create_namespace("team-of-the-upgrade")
    return Live(audited, "team-of-the-upgrade")


@pytest.fixture
def parts(audited: AuditedCluster) -> Iterator[Parts]:
    """muster's programs; stopped at the end."""
    programs = Parts(audited)
    yield programs
    stop(programs)


def start(parts: Parts) -> None:
    parts.start_extender()
    parts.start_scheduler()
    parts.start_operator()


def stop(parts: Parts) -> None:
    for name in ("operator", "scheduler", "extender"):
        parts.stop(name)


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The chart of a later version with an additional status field of DLJobs."""
    chart = tmp_path / "muster"
    shutil.copytree(CHART, chart)
    metadata = chart / "Chart.yaml"
    metadata.write_text(metadata.read_text().replace("version: 0.1.0", "version: 0.2.0"))
    path = chart / "files/crds/muster.dev_dljobs.yaml"
    definition = yaml.safe_load(path.read_text())
    status_of(definition)["properties"]["news"] = {"type": "string"}
    path.write_text(yaml.safe_dump(definition))
    return chart


def status_of(definition: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of the status in a definition of DLJobs."""
    schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return schema


def test_job_runs_through_upgrade_rollback_and_uninstall(
    audited: AuditedCluster, cluster_helm: Helm, team: Live, parts: Parts, newer: Path
) -> None:
    def has_news() -> bool:
        return "news" in status_of(audited.api.get(DEFINITION))["properties"]

    def assert_unaffected() -> None:
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
    assert has_news(), "an upgrade updates the definitions"
    stop(parts)
    start(parts)
    assert_unaffected()
    team.job("later", 2, 1)
    team.wait_running("later", 2)

    cluster_helm("rollback", RELEASE, "1", "--namespace", NAMESPACE, "--wait", "--timeout", "120s")
    assert not has_news()
    stop(parts)
    start(parts)
    team.job("last", 2, 1)
    team.wait_running("last", 2)
    assert_unaffected()

    stop(parts)
    cluster_helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "120s")
    assert_unaffected()

    for command in REMOVE_ALL.split(" && "):
        audited.kubectl(*command.split()[1:])
    assert not team.pods()
    assert not audited.exists(DEFINITION)
    audited.api.delete(f"/api/v1/namespaces/{team.namespace}")
    audited.wait(lambda: not audited.exists(f"/api/v1/namespaces/{team.namespace}"), "the namespace is deleted")


def test_removal_commands_are_documented() -> None:
    assert REMOVE_ALL in (CHART / "templates/NOTES.txt").read_text()
    assert REMOVE_ALL in (CHART.parents[1] / "docs/install.md").read_text()
