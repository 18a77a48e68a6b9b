"""One cluster with all of muster's parts, and in each test's namespace a user with the role edit and the chart's rights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from builders.chart import Helm
from builders.live import Live, template
from builders.live_processes import Operator
from muster.api import names
from muster.kube.errors import Forbidden
from muster_dev.local import stack
from muster_dev.local.cluster import LocalCluster

NODES = "pcie-8:2"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A real control plane on which muster runs, with the chart's roles for users."""
    rendered = Helm(tmp_path_factory.mktemp("helm")).template()
    labels = ("rbac.authorization.k8s.io/aggregate-to-edit", "rbac.authorization.k8s.io/aggregate-to-view")
    roles = [each for each in rendered if any(label in each["metadata"].get("labels", {}) for label in labels)]
    assert len(roles) == len(labels)
    with LocalCluster(nodes=NODES) as running:
        stack.install(running, manifests=roles)
        yield running


@pytest.fixture
def namespace(cluster: LocalCluster) -> Iterator[str]:
    """A new namespace whose user has the role edit."""
    name = f"team-{next(_numbers)}"
    cluster.create_namespace(name)
    binding = {
        "metadata": {"name": "edit"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}],
    }
    cluster.api.create(f"{RBAC}/namespaces/{name}/rolebindings", binding)
    yield name
    cluster.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def user(cluster: LocalCluster, namespace: str) -> Iterator[Live]:
    """The namespace as its user writes to it. After the test all is deleted, and the operator must not have failed."""
    live = Live(cluster, namespace, acting=cluster.api_for(namespace))
    cluster.wait(lambda: _may_submit(live), "the user may create DLJobs")
    yield live
    Live(cluster, namespace, live.added).clear()
    log = Operator(cluster).log()
    assert "Traceback" not in log, log[log.index("Traceback") - 2000 :]


def _may_submit(user: Live) -> bool:
    """Whether the API server knows of the user's rights yet."""
    spec = {"roles": {"worker": {"template": template(1)}}}
    head = {"apiVersion": names.API_VERSION, "kind": "DLJob", "metadata": {"name": "try"}}
    try:
        user.api.create(user.path("dljobs"), head | {"spec": spec}, dry_run=True)
    except Forbidden:
        return False
    return True
