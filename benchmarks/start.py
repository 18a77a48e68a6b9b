"""How long a gang takes to run on real kubelets, beside the same pods without muster: `make bench-start`.

The DLJob of examples/allreduce.yaml, four pods of four GPUs on two nodes, is applied, and timed until all four are Running; so
are the same pods as plain Jobs, one a node, pinned by spec.nodeName: no plan, no reservation, no scheduler at all. They take
turns, and who goes first changes from round to round. Then nothing runs for a minute, and the kubelets tell what muster's
containers take: CPU, and memory that cannot be taken from them (the working set). On the kind cluster that is up, else on one
that is brought up for it. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import yaml

from muster.api import names
from muster_dev.kind import cluster as kind_cluster
from muster_dev.kind.cluster import NAMESPACE, Cluster
from muster_dev.kind.images import PROJECT
from muster_dev.local.progress import Quiet, Shown
from muster_dev.local.waiting import PATIENCE_SECONDS, until

PODS = 4
STEPS = ("created", "bound", "running")
_SLEEP = ["python3", "-c", "import time; time.sleep(3600)"]
Object = dict[str, Any]
Start = Mapping[str, float]
"""Seconds from before the apply until all pods have come to each of STEPS."""


@dataclass(frozen=True)
class Use:
    """What a container has taken so far: CPU in seconds, as of `at` (seconds); and what it takes now: memory in MiB."""

    cpu: float
    at: float
    memory: float


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print the figures."""
    options = _parser().parse_args(argv)
    with found_or_brought_up() as cluster, namespace(cluster) as where, TemporaryDirectory() as folder:
        contestants = {"muster": dljobs, "plain": plain_jobs(worker_nodes(cluster))}
        starts: dict[str, list[Start]] = {name: [] for name in contestants}
        for number in range(options.rounds + 1):  # the first warms up: images, caches
            for name in sorted(contestants, reverse=bool(number % 2)):
                start = started(cluster, where, f"{name}-{number}", contestants[name], Path(folder))
                if number:
                    starts[name].append(start)
                    print(f"round {number}: {name} {start['running']:.2f} s", flush=True)
        print(f"idle for {options.idle:.0f} s", flush=True)
        over = time.time()
        until(lambda: min(use.at for use in uses(cluster).values()) > over, "each kubelet has looked since the last job")
        before = uses(cluster)
        time.sleep(options.idle)
        after = uses(cluster)
    result = report(starts) | {"idle": idle(before, after)}
    show(result)
    print(json.dumps(result))


def started(cluster: Cluster, where: str, name: str, jobs: Callable[[str], Sequence[Object]], folder: Path) -> Start:
    """Apply jobs, follow their pods until all run, remove them, and return how long each step took."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump_all(jobs(name)))
    seen: dict[str, dict[str, float]] = {step: {} for step in STEPS}
    with watched(cluster, where) as pods:
        began = time.monotonic()
        cluster.kubectl("apply", "--namespace", where, "--filename", file)
        while len(seen["running"]) < PODS:
            at, pod, steps = pods()
            if pod.startswith(f"{name}-"):
                for step in steps:
                    seen[step].setdefault(pod, at - began)
    cluster.kubectl("delete", "--namespace", where, "--filename", file, "--cascade=foreground", "--timeout=120s")
    until(lambda: not cluster.kubectl("get", "pods", "--namespace", where, "--output=name"), "its pods are gone")
    return {step: max(seen[step].values()) for step in STEPS}


@contextmanager
def watched(cluster: Cluster, where: str) -> Iterator[Callable[[], tuple[float, str, Sequence[str]]]]:
    """Watch the pods of a namespace: call for when which pod was seen to have come to which steps."""
    line = '{.object.metadata.name} {.object.status.phase} {.object.spec.nodeName}{"\\n"}'
    watch = ("get", "pods", "--namespace", where, "--watch", "--output-watch-events", f"--output=jsonpath={line}")
    words = cluster.engine.command(cluster.programs["kubectl"], *watch)
    heard: SimpleQueue[tuple[float, str]] = SimpleQueue()
    process = subprocess.Popen(
        words, env=os.environ | cluster.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines = process.stdout

    def listen() -> None:
        for text in lines:
            heard.put((time.monotonic(), text))

    def pods() -> tuple[float, str, Sequence[str]]:
        at, text = heard.get(timeout=PATIENCE_SECONDS)
        name, phase, *node = text.split()
        return at, name, STEPS[: 3 if phase == "Running" else 2 if node else 1]

    listener = Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield pods
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # what brings kubectl to the engine's network, and kubectl
        process.wait()
        listener.join()


def dljobs(name: str) -> Sequence[Object]:
    """Return the DLJob of the example, with pods that wait until they are removed."""
    manifest: Object = yaml.safe_load((PROJECT / "examples" / "allreduce.yaml").read_text())
    manifest["metadata"]["name"] = name
    role = manifest["spec"]["roles"]["worker"]
    assert role["replicas"] == PODS
    spec = role["template"]["spec"]
    spec["terminationGracePeriodSeconds"] = 1
    spec["containers"][0]["command"] = _SLEEP
    return [manifest]


def plain_jobs(nodes: Sequence[str]) -> Callable[[str], Sequence[Object]]:
    """Return what makes Jobs of the same pods, one on each of these nodes."""

    def job(name: str, node: str) -> Object:
        (manifest,) = dljobs(name)
        template = manifest["spec"]["roles"]["worker"]["template"]
        template["spec"] |= {"nodeName": node, "restartPolicy": "Never"}
        share = PODS // len(nodes)
        spec = {"completions": share, "parallelism": share, "template": template}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": f"{name}-{node}"}, "spec": spec}

    return lambda name: [job(name, node) for node in nodes]


def worker_nodes(cluster: Cluster) -> list[str]:
    """Return the nodes that have GPUs, which the DLJob fills."""
    of_machines = ("--selector", names.MACHINE, "--output=jsonpath={.items[*].metadata.name}")
    return cluster.kubectl("get", "nodes", *of_machines).split()


def uses(cluster: Cluster) -> dict[str, Use]:
    """Ask the kubelets what muster's containers take, by pod and container."""
    nodes = cluster.kubectl("get", "nodes", "--output=jsonpath={.items[*].metadata.name}").split()
    said = [json.loads(cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary")) for node in nodes]
    pods = [pod for summary in said for pod in summary["pods"] if pod["podRef"]["namespace"] == NAMESPACE]
    return {f"{pod['podRef']['name']} {each['name']}": _use(each) for pod in pods for each in pod["containers"]}


def _use(container: Mapping[str, Any]) -> Use:
    cpu, memory = container["cpu"], container["memory"]
    at = datetime.fromisoformat(cpu["time"]).timestamp()
    return Use(cpu["usageCoreNanoSeconds"] / 1e9, at, memory["workingSetBytes"] / 2**20)


def idle(before: Mapping[str, Use], after: Mapping[str, Use]) -> Object:
    """Return CPU (percent of a core) and memory (MiB) by container, and in all; memory without kube-scheduler."""
    parts = {
        name: {
            "cpu_percent": round(100 * (use.cpu - before[name].cpu) / (use.at - before[name].at), 2),
            "memory_mib": round(use.memory, 1),
        }
        for name, use in sorted(after.items())
    }
    counted = [part["memory_mib"] for name, part in parts.items() if not name.endswith(" kube-scheduler")]
    total = {"cpu_percent": round(sum(part["cpu_percent"] for part in parts.values()), 2), "memory_mib": round(sum(counted), 1)}
    return {"parts": parts, "total": total}


def report(starts: Mapping[str, Sequence[Start]]) -> Object:
    """Return least, median and most of each contestant by step, in seconds, and the ratio of the medians until all run."""
    seconds = {name: {step: _spread([each[step] for each in of_one]) for step in STEPS} for name, of_one in starts.items()}
    ratio = seconds["muster"]["running"][1] / seconds["plain"]["running"][1]
    return {"seconds": seconds, "ratio": round(ratio, 2)}


def _spread(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in (min(values), median(values), max(values))]


def show(result: Mapping[str, Any]) -> None:
    """Print for people."""
    for name, steps in result["seconds"].items():
        print(
            f"{name:8}"
            + "".join(f"  all {step} {low:5.2f} {mid:5.2f} {high:5.2f} s" for step, (low, mid, high) in steps.items())
        )
    print(f"muster / plain: {result['ratio']:.2f} (asked: 1.30)")
    for name, part in result["idle"]["parts"].items():
        print(f"{name:55} {part['cpu_percent']:5.2f} % {part['memory_mib']:7.1f} MiB")
    cpu, memory = result["idle"]["total"].values()
    print(f"idle: {cpu:.2f} % of a core (asked: 2), {memory:.0f} MiB without kube-scheduler (asked: 300)")


@contextmanager
def found_or_brought_up() -> Iterator[Cluster]:
    """Use the cluster that is up; one that is brought up for this goes again."""
    if found := Cluster.find(Quiet()):
        yield found
        return
    try:
        yield kind_cluster.up(Shown())
    finally:
        kind_cluster.down(Quiet())


@contextmanager
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace for the jobs."""
    name = f"bench-start-{os.getpid()}"
    cluster.kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--timeout=120s")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="starts of each (default: %(default)s)")
    parser.add_argument(
        "--idle", type=float, default=60.0, help="seconds without work; a kubelet looks every 10 to 15 (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    main()
