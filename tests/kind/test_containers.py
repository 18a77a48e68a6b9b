"""What the containers of a gang are told: init containers and sidecars as well, and gangs in the network of their node."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from kind.jobs import Jobs, Object, allreduce, namespace, nodes_of
from muster.api import names
from muster_dev.kind.cluster import Cluster

pytestmark = pytest.mark.kind
TELLS = """
import json, os, pathlib, socket, time
told = {name: os.environ[name] for name in ("MASTER_ADDR", "MUSTER_RANK")}
told["annotations"] = pathlib.Path("/etc/muster/annotations").read_text()
while True:
    try:
        socket.getaddrinfo(told["MASTER_ADDR"], None)
        break
    except OSError:
        time.sleep(0.2)
print(json.dumps(told), flush=True)
"""
STAYS = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
signal.pause()
"""
MEETS = """
import os, socket, time
me, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if os.environ["RANK"] == "0":
    with socket.create_server(("", port)) as server:
        while True:
            caller, _ = server.accept()
            caller.sendall(me.encode())
            caller.close()
while True:
    try:
        with socket.create_connection((me, port)) as server:
            raise SystemExit(server.makefile().read() != me)
    except OSError:
        time.sleep(0.2)
"""
"""Rank 0 listens on its port for good; the others ask it which gang it is of, and fail if it is not theirs."""


@pytest.fixture(scope="module")
def jobs(kind: Cluster) -> Iterator[Jobs]:
    """Jobs in one namespace for both tests: removing one takes longer than they do."""
    with namespace(kind, f"containers-{os.getpid()}") as jobs:
        yield jobs


def test_init_containers_and_sidecars_know_their_gang(jobs: Jobs, tmp_path: Path) -> None:
    job = allreduce("informed", workers=2, gpus=2, arguments=["--steps=20"])
    spec = job["spec"]["roles"]["worker"]["template"]["spec"]
    image = {"image": "muster-runtime:0.1.0"}
    spec["initContainers"] = [
        image | {"name": "before", "command": ["python3", "-c", TELLS]},
        image | {"name": "beside", "command": ["python3", "-c", TELLS + STAYS], "restartPolicy": "Always"},
    ]
    jobs.apply(job, folder=tmp_path)
    jobs.until_phase("informed", "Succeeded")
    for rank, pod in enumerate(jobs.gang("informed")):
        for container in ("before", "beside"):
            told = json.loads(jobs.kubectl("logs", pod["metadata"]["name"], "--container", container))
            assert told["MASTER_ADDR"] == f"informed-worker-0.informed.{jobs.namespace}.svc"
            assert told["MUSTER_RANK"] == str(rank)
            gpus = pod["metadata"]["annotations"][names.GPUS]
            assert {f'{names.RANK}="{rank}"', f'{names.GPUS}="{gpus}"'} <= set(told["annotations"].splitlines())


def test_gangs_in_the_network_of_one_node_listen_side_by_side(jobs: Jobs, tmp_path: Path) -> None:
    gangs = [on_the_host(name) for name in ("left", "right")]
    jobs.apply(*gangs, folder=tmp_path)
    for name in ("left", "right"):
        jobs.until(partial(has_met, jobs, name), f"rank 1 of {name} found its rank 0")
    assert [jobs.phase(name) for name in ("left", "right")] == ["Running", "Running"]
    assert len({*nodes_of(jobs.gang("left")), *nodes_of(jobs.gang("right"))}) == 1
    assert not any(jobs.get("dljob", name)["status"].get("restarts") for name in ("left", "right"))


def on_the_host(name: str) -> Object:
    job = allreduce(name, workers=2, gpus=1)
    spec = job["spec"]["roles"]["worker"]["template"]["spec"]
    spec |= {
        "hostNetwork": True,
        "terminationGracePeriodSeconds": 1,
        "nodeSelector": {"kubernetes.io/hostname": "muster-worker2"},
    }
    spec["containers"][0]["command"] = ["python3", "-c", MEETS]
    return job


def has_met(jobs: Jobs, job: str) -> bool:
    return [pod["status"]["phase"] for pod in jobs.gang(job)] == ["Running", "Succeeded"]
