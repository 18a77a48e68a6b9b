"""What the processes of a gang are told of each other, word for word."""

from __future__ import annotations

import json
from typing import Any

from builders.dljobs import job, placed, roles, template
from muster_operator.dljob.job import Job
from muster_operator.dljob.rendezvous import environment, hostfile


def gang(rendezvous: str, **fields: Any) -> Job:
    return placed(job(rendezvous=rendezvous, **fields))


def told(one: Job, index: int) -> dict[str, str]:
    return environment(one, one.status.placement[index], one.status.placement)


def test_torchrun_variables() -> None:
    address = "vgg16-worker-0.vgg16.vision.svc"
    assert told(gang("Torchrun"), 1) == {
        "MUSTER_ROLE": "worker",
        "MUSTER_RANK": "1",
        "MUSTER_SIZE": "2",
        "MUSTER_ATTEMPT": "1",
        "MASTER_ADDR": address,
        "MASTER_PORT": "29500",
        "WORLD_SIZE": "2",
        "RANK": "1",
        "PET_MASTER_ADDR": address,
        "PET_MASTER_PORT": "29500",
        "PET_NNODES": "2",
        "PET_NODE_RANK": "1",
        "PET_NPROC_PER_NODE": "2",
    }


def test_master_is_the_pod_of_rank_0_whatever_its_number() -> None:
    one = gang("Torchrun")
    for place, rank in zip(one.status.placement, (1, 0), strict=True):
        place.rank = rank
    assert told(one, 0)["MASTER_ADDR"] == told(one, 1)["PET_MASTER_ADDR"] == "vgg16-worker-1.vgg16.vision.svc"
    assert (told(one, 0)["RANK"], told(one, 1)["PET_NODE_RANK"]) == ("1", "0")


def test_job_without_rendezvous_gets_musters_variables_only() -> None:
    assert set(told(gang("None"), 0)) == {"MUSTER_ROLE", "MUSTER_RANK", "MUSTER_SIZE", "MUSTER_ATTEMPT"}


def test_mpi_variables() -> None:
    one = gang("MPI", roles=roles(workers=1, chief=1))
    path = "/etc/muster/hostfile"
    found = told(one, 0)
    assert {key: value for key, value in found.items() if value == path} == {
        "OMPI_MCA_orte_default_hostfile": path,
        "PRTE_MCA_prte_default_hostfile": path,
        "HYDRA_HOST_FILE": path,
    }
    assert (found["MUSTER_ROLE"], found["MUSTER_SIZE"]) == ("chief", "2")


def test_hostfile_is_in_rank_order_and_has_a_slot_a_gpu() -> None:
    one = gang("MPI", roles={**roles(workers=3, gpus=4), "chief": {"replicas": 1, "template": template(0)}})
    for place, rank in zip(one.status.placement, (3, 2, 0, 1), strict=True):
        place.rank = rank
    names = [f"vgg16-worker-{index}.vgg16.vision.svc slots=4\n" for index in (1, 2, 0)]
    assert hostfile(one, one.status.placement) == "".join(names)


def test_launcher_that_trains_is_in_the_hostfile() -> None:
    one = gang("MPI", roles={**roles(workers=1, gpus=2), "chief": {"replicas": 1, "template": template(1)}})
    lines = hostfile(one, one.status.placement)
    assert lines == "vgg16-chief-0.vgg16.vision.svc slots=1\nvgg16-worker-0.vgg16.vision.svc slots=2\n"


def test_worker_without_named_gpus_has_one_slot() -> None:
    one = gang("MPI", roles=roles(workers=1))
    one.status.placement[0].gpus = []
    assert hostfile(one, one.status.placement) == "vgg16-worker-0.vgg16.vision.svc slots=1\n"


def test_tf_config() -> None:
    one = gang("ParameterServer", roles=roles(workers=2, chief=1, ps=2, evaluator=1))
    cluster = {
        "chief": ["vgg16-chief-0.vgg16.vision.svc:2222"],
        "ps": ["vgg16-ps-0.vgg16.vision.svc:2222", "vgg16-ps-1.vgg16.vision.svc:2222"],
        "worker": ["vgg16-worker-0.vgg16.vision.svc:2222", "vgg16-worker-1.vgg16.vision.svc:2222"],
    }
    tasks = [json.loads(told(one, index)["TF_CONFIG"]) for index in range(6)]
    assert [task["cluster"] for task in tasks] == [cluster] * 6
    assert [(task["task"]["type"], task["task"]["index"]) for task in tasks] == [
        ("chief", 0),
        ("worker", 0),
        ("worker", 1),
        ("ps", 0),
        ("ps", 1),
        ("evaluator", 0),
    ]


def test_tf_config_lists_by_index_and_not_by_rank() -> None:
    one = gang("ParameterServer", roles=roles(workers=3, ps=1))
    turned = list(reversed(one.status.placement))
    text = environment(one, turned[0], turned)["TF_CONFIG"]
    assert text == (
        '{"cluster": {"ps": ["vgg16-ps-0.vgg16.vision.svc:2222"], "worker": ["vgg16-worker-0.vgg16.vision.svc:2222", '
        '"vgg16-worker-1.vgg16.vision.svc:2222", "vgg16-worker-2.vgg16.vision.svc:2222"]}, "task": {"index": 0, "type": "ps"}}'
    )


def on_host(rendezvous: str, name: str = "vgg16", first: int = 0, **fields: Any) -> Job:
    """A gang in the network of its nodes; GPUs from a number on."""
    worker = {"replicas": 2, "template": template(2, hostNetwork=True)}
    one = gang(rendezvous, name=name, roles={"worker": worker, **fields}, metadata={"uid": f"uid-{name}"})
    for place in one.status.placement:
        place.gpus = [gpu + first for gpu in place.gpus]
    return one


def test_gangs_in_the_network_of_one_node_get_different_ports() -> None:
    ports = {told(on_host("Torchrun", first=first), index)["MASTER_PORT"] for first in (0, 4) for index in (0, 1)}
    assert len(ports) == 2
    servers = [json.loads(told(on_host("ParameterServer", first=first), 0)["TF_CONFIG"])["cluster"] for first in (0, 4)]
    assert servers[0]["worker"] != servers[1]["worker"]


def test_pods_without_gpus_are_told_apart_by_their_job() -> None:
    ps = {"replicas": 2, "template": template(0, hostNetwork=True)}
    clusters = [json.loads(told(on_host("ParameterServer", name, ps=ps), 0)["TF_CONFIG"])["cluster"]["ps"] for name in "ab"]
    ports = [address.rpartition(":")[2] for addresses in clusters for address in addresses]
    assert len(set(ports)) == 4
    assert all(20_000 <= int(port) < 32_768 for port in ports)
