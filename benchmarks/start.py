"""Start-up time of a gang on real kubelets, compared with plain Jobs, and muster's idle footprint: `make bench-start`.

The benchmark applies the DLJob of examples/allreduce.yaml, four pods of four GPUs on two nodes, and measures the time until all
four are Running. The baseline is the same pods as plain Jobs, one for each node, pinned by spec.nodeName, which bypasses every
scheduler. Both run in every round, in alternating order. Then the cluster idles for a minute, and the kubelets report CPU and
working-set memory of muster's containers. It uses the running kind cluster, or brings one up and removes it afterwards. The
last line is one JSON object.
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
"""Seconds from the apply until all pods have reached each of STEPS."""


@dataclass(frozen=True)
class Use:
    """The usage of a container at time `at` (seconds since 1970): CPU seconds so far, and working set in MiB."""

    cpu: float
    at: float
    memory: float


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    options = _parser().parse_args(argv)
    with running_or_temporary() as cluster, namespace(cluster) as jobs_namespace, TemporaryDirectory() as folder:
        contestants = {"muster": dljobs, "plain": plain_jobs(worker_nodes(cluster))}
        starts: dict[str, list[Start]] = {name: [] for name in contestants}
        for number in range(options.rounds + 1):  # the first round warms up images and caches
            for name in sorted(contestants, reverse=bool(number % 2)):
                start = started(cluster, jobs_namespace, f"{name}-{number}", contestants[name], Path(folder))
                if number:
                    starts[name].append(start)
                    print(f"round {number}: {name} {start['running']:.2f} s", flush=True)
        print(f"idle for {options.idle:.0f} s", flush=True)
        last_job = time.time()
        until(lambda: min(use.at for use in uses(cluster).values()) > last_job, "each kubelet has measured since the last job")
        before = uses(cluster)
        time.sleep(options.idle)
        after = uses(cluster)
    result = report(starts) | {"idle": idle(before, after)}
    show(result)
    print(json.dumps(result))


def started(cluster: Cluster, namespace: str, name: str, jobs: Callable[[str], Sequence[Object]], folder: Path) -> Start:
    """Apply jobs, watch their pods until all run, delete them, and return the seconds of each step."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump_all(jobs(name)))
    reached: dict[str, dict[str, float]] = {step: {} for step in STEPS}
    with watched(cluster, namespace) as pods:
        began = time.monotonic()
        cluster.kubectl("apply", "--namespace", namespace, "--filename", file)
        while len(reached["running"]) < PODS:
            at, pod, steps = pods()
            if pod.startswith(f"{name}-"):
                for step in steps:
                    reached[step].setdefault(pod, at - began)
    cluster.kubectl("delete", "--namespace", namespace, "--filename", file, "--cascade=foreground", "--timeout=120s")
    until(lambda: not cluster.kubectl("get", "pods", "--namespace", namespace, "--output=name"), "its pods are gone")
    return {step: max(reached[step].values()) for step in STEPS}


@contextmanager
def watched(cluster: Cluster, namespace: str) -> Iterator[Callable[[], tuple[float, str, Sequence[str]]]]:
    """Watch the pods of a namespace; each call returns the next event: its time, the pod, and the steps it has reached."""
    line = '{.object.metadata.name} {.object.status.phase} {.object.spec.nodeName}{"\\n"}'
    watch = ("get", "pods", "--namespace", namespace, "--watch", "--output-watch-events", f"--output=jsonpath={line}")
    words = cluster.engine.command(cluster.programs["kubectl"], *watch)
    events: SimpleQueue[tuple[float, str]] = SimpleQueue()
    process = subprocess.Popen(
        words, env=os.environ | cluster.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines = process.stdout

    def listen() -> None:
        for text in lines:
            events.put((time.monotonic(), text))

    def pods() -> tuple[float, str, Sequence[str]]:
        at, text = events.get(timeout=PATIENCE_SECONDS)
        name, phase, *node = text.split()
        return at, name, STEPS[: 3 if phase == "Running" else 2 if node else 1]

    listener = Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield pods
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # kubectl and its wrapper in the engine's network
        process.wait()
        listener.join()


def dljobs(name: str) -> Sequence[Object]:
    """Return the DLJob of the example, with pods that sleep until they are deleted."""
    manifest: Object = yaml.safe_load((PROJECT / "examples" / "allreduce.yaml").read_text())
    manifest["metadata"]["name"] = name
    role = manifest["spec"]["roles"]["worker"]
    assert role["replicas"] == PODS
    spec = role["template"]["spec"]
    spec["terminationGracePeriodSeconds"] = 1
    spec["containers"][0]["command"] = _SLEEP
    return [manifest]


def plain_jobs(nodes: Sequence[str]) -> Callable[[str], Sequence[Object]]:
    """Return a function that makes plain Jobs of the same pods, one for each of these nodes."""

    def job(name: str, node: str) -> Object:
        (manifest,) = dljobs(name)
        template = manifest["spec"]["roles"]["worker"]["template"]
        template["spec"] |= {"nodeName": node, "restartPolicy": "Never"}
        pods = PODS // len(nodes)
        spec = {"completions": pods, "parallelism": pods, "template": template}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": f"{name}-{node}"}, "spec": spec}

    return lambda name: [job(name, node) for node in nodes]


def worker_nodes(cluster: Cluster) -> list[str]:
    """Return the GPU nodes, which the DLJob fills."""
    of_machines = ("--selector", names.MACHINE, "--output=jsonpath={.items[*].metadata.name}")
    return cluster.kubectl("get", "nodes", *of_machines).split()


def uses(cluster: Cluster) -> dict[str, Use]:
    """Return the usage of muster's containers from the kubelets, by pod and container."""
    nodes = cluster.kubectl("get", "nodes", "--output=jsonpath={.items[*].metadata.name}").split()
    summaries = [json.loads(cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary")) for node in nodes]
    pods = [pod for summary in summaries for pod in summary["pods"] if pod["podRef"]["namespace"] == NAMESPACE]
    return {f"{pod['podRef']['name']} {container['name']}": _use(container) for pod in pods for container in pod["containers"]}


def _use(container: Mapping[str, Any]) -> Use:
    cpu, memory = container["cpu"], container["memory"]
    at = datetime.fromisoformat(cpu["time"]).timestamp()
    return Use(cpu["usageCoreNanoSeconds"] / 1e9, at, memory["workingSetBytes"] / 2**20)


def idle(before: Mapping[str, Use], after: Mapping[str, Use]) -> Object:
    """Return CPU (percent of a core) and memory (MiB) by container, and their totals, memory without kube-scheduler."""
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
    """Return minimum, median and maximum seconds of each contestant by step, and the ratio of the medians of `running`."""
    seconds = {name: {step: _spread([start[step] for start in rounds]) for step in STEPS} for name, rounds in starts.items()}
    ratio = seconds["muster"]["running"][1] / seconds["plain"]["running"][1]
    return {"seconds": seconds, "ratio": round(ratio, 2)}


def _spread(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in (min(values), median(values), max(values))]


def show(result: Mapping[str, Any]) -> None:
    """Print the results as text."""
    for name, steps in result["seconds"].items():
        print(
            f"{name:8}"
            + "".join(f"  all {step} {low:5.2f} {mid:5.2f} {high:5.2f} s" for step, (low, mid, high) in steps.items())
        )
    print(f"muster / plain: {result['ratio']:.2f} (target: 1.30)")
    for name, part in result["idle"]["parts"].items():
        print(f"{name:55} {part['cpu_percent']:5.2f} % {part['memory_mib']:7.1f} MiB")
    cpu, memory = result["idle"]["total"].values()
    print(f"idle: {cpu:.2f} % of a core (target: 2), {memory:.0f} MiB without kube-scheduler (target: 300)")


@contextmanager
def running_or_temporary() -> Iterator[Cluster]:
    """Yield the running cluster, or bring one up and remove it afterwards."""
    if cluster := Cluster.find(Quiet()):
        yield cluster
        return
    try:
        yield kind_cluster.up(Shown())
    finally:
        kind_cluster.down(Quiet())


@contextmanager
def namespace(cluster: Cluster) -> Iterator[str]:
    """Yield a temporary namespace for the jobs."""
    name = f"bench-start-{os.getpid()}"
    cluster.kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--timeout=120s")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--idle", type=float, default=60.0, help="idle seconds; a kubelet measures every 10 to 15 s (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    main()
