"""What a pod asks for, by name, as kube-scheduler counts it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from muster.allocation.pods import charge_of, constraint_of, resources_of
from muster.kube.objects import Demand, Pod
from muster.scheduling.resources import HOST_PORT, Resources


def container(ports: Any = None, sidecar: bool = False, **requests: Any) -> dict[str, Any]:
    restarts = {"restartPolicy": "Always"} if sidecar else {}
    asked = {name.replace("_", "-"): amount for name, amount in requests.items()}
    return {"name": "c", "resources": {"requests": asked}, "ports": ports, **restarts}


def pod(*containers: dict[str, Any], **spec: Any) -> Pod:
    return msgspec.convert({"metadata": {"name": "p"}, "spec": {"containers": containers, **spec}}, Pod)


@pytest.mark.parametrize(
    ("one", "others"),
    [
        (pod(container(ephemeral_storage="1Ki"), container(ephemeral_storage=24)), {"ephemeral-storage": 1048}),
        (pod(container(), initContainers=[container(hugepages_2Mi="4Mi")]), {"hugepages-2Mi": 4 << 20}),
        (
            pod(
                container(hugepages_2Mi=2),
                initContainers=[container(sidecar=True, hugepages_2Mi=4), container(hugepages_2Mi=5)],
            ),
            {"hugepages-2Mi": 9},
        ),
        (pod(container(hugepages_2Mi=2), resources={"requests": {"hugepages-2Mi": 7}}), {"hugepages-2Mi": 7}),
        (pod(container(), overhead={"ephemeral-storage": 9}), {"ephemeral-storage": 9}),
        (pod(container()), {}),
    ],
    ids=["containers add up", "init container", "sidecar and init container", "pod level", "overhead", "nothing"],
)
def test_resources_by_name_are_counted_as_kubernetes_does(one: Pod, others: dict[str, int]) -> None:
    assert resources_of(one) == Resources(0, 0, 1, tuple(others.items()))


def test_pod_level_amounts_stand_in_place_of_those_of_containers() -> None:
    one = pod(container(cpu=1, memory=5), resources={"requests": {"cpu": "3"}}, overhead={"cpu": "1m"})
    assert resources_of(one) == Resources(3001, 5, 1)


@pytest.mark.parametrize(
    ("containers", "amount"),
    [
        ([container()], 8000),
        ([container(cpu=2), container()], 2000),
        ([{"name": "c", "resources": {"limits": {"cpu": 3}}}], 3000),
    ],
    ids=["no container requests any", "one requests some", "one has a limit of its own"],
)
def test_pod_level_limit_is_what_is_requested_where_no_container_requests_any(containers: Any, amount: int) -> None:
    assert resources_of(pod(*containers, resources={"limits": {"cpu": 8}})).cpu == amount


def test_pod_level_limit_of_huge_pages_is_requested_in_any_case() -> None:
    one = pod(container(hugepages_2Mi=2), resources={"limits": {"hugepages-2Mi": 7}})
    assert resources_of(one).others == (("hugepages-2Mi", 7),)


def test_pod_level_amounts_count_in_a_quota() -> None:
    charge = charge_of(pod(container(cpu=2), resources={"limits": {"cpu": 8, "memory": "1Ki"}}))
    expected = {"requests.cpu": 2000, "limits.cpu": 8000, "requests.memory": 1024, "limits.memory": 1024}
    assert {name: amount for name, amount in charge.amounts if "pods" not in name} == expected
    assert not charge.best_effort


def test_device_of_another_plugin_is_counted_by_its_limit() -> None:
    one = pod({"name": "c", "resources": {"limits": {"rdma/hca": "1", "nvidia.com/gpu": 8}}})
    assert resources_of(one).others == (("rdma/hca", 1),)


def test_resource_of_many_containers_is_summed_over_those_that_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template of 1,500 containers with a resource each took seconds, which is a job's to choose."""
    looks = 0

    def looked(demand: Demand, name: str) -> str | int:
        nonlocal looks
        looks += 1
        return whole(demand, name)

    whole = Demand.of
    monkeypatch.setattr(Demand, "of", looked)
    many = 400
    asked = ({f"x.org/{number}": 1, "x.org/all": 2} for number in range(many))
    one = pod(*({"name": "c", "resources": {"requests": requests}} for requests in asked))
    amounts = dict(resources_of(one).others)
    assert (len(amounts), amounts["x.org/7"], amounts["x.org/all"]) == (many + 1, 1, 2 * many)
    assert looks < 10 * many


def test_host_ports_are_resources_of_the_node() -> None:
    host = {"containerPort": 80, "hostPort": 8080}
    one = pod(container([host, {"containerPort": 81}]), initContainers=[container([host | {"hostPort": 1}])])
    assert resources_of(one).others == ((f"{HOST_PORT}TCP/8080", 1),)
    networked = pod(container([{"containerPort": 81, "protocol": "UDP"}]), hostNetwork=True)
    assert resources_of(networked).others == ((f"{HOST_PORT}UDP/81", 1),)


def test_host_port_of_one_address_is_named_with_it() -> None:
    ports = [{"containerPort": 80, "hostPort": 80, "hostIP": ip} for ip in ("127.0.0.1", "0.0.0.0")]
    others = resources_of(pod(container(ports))).others
    assert others == ((f"{HOST_PORT}TCP/80", 1), (f"{HOST_PORT}TCP/80 at 127.0.0.1", 1))


def test_preferred_terms_keep_their_weights() -> None:
    term = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    preferred = [{"weight": 7, "preference": term}, {"weight": 9, "preference": {"matchFields": []}}]
    where = constraint_of(pod(affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}).spec)
    assert where.preference("n", {"disk": "ssd"}, ()) == 7
    assert where.preference("n", {"disk": "hdd"}, ()) == 0
    assert where.admits("n", {}, ())
