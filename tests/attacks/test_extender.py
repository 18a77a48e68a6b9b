"""A stranger on the pod network, at the extender: GPU pods of others start beside whatever is sent.

The extender is a process with the Service's listener on; a real kube-scheduler asks it on loopback. The stranger has an address
of its own.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from trustme import CA

from builders.guarded import Guarded, bound, gpu_pod
from builders.guarded import guarded as start_guarded
from muster_dev.local import certificates
from muster_dev.local.cluster import LocalCluster

pytestmark = pytest.mark.cluster

STRANGER = ("127.0.0.2", 0)
BIG = 60_000_000
_numbers = itertools.count()
OPEN = 'muster_extender_requests_total{outcome="open-passed",verb="filter"}'


@pytest.fixture(scope="module")
def victim(cluster: LocalCluster) -> Iterator[Guarded]:
    """The extender and the scheduler "attacked" that asks it."""
    with start_guarded(cluster, "attacked") as running:
        yield running


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60, source_address=STRANGER)


def post(port: int, body: bytes, length: int | None = None) -> bytes:
    """Send a filter request as far as the other side takes it; return what it answers."""
    head = f"POST /filter HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length or len(body)}\r\n\r\n"
    with connect(port) as stream:
        with suppress(OSError):
            stream.sendall(head.encode())
            stream.sendall(body)
        answer = b""
        with suppress(OSError):
            while chunk := stream.recv(1 << 16):
                answer += chunk
    return answer


def filtered(port: int, pod: dict[str, Any], nodes: list[str]) -> dict[str, Any]:
    answer = post(port, json.dumps({"Pod": pod, "NodeNames": nodes}).encode())
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


@contextmanager
def beside(attack: Callable[[], None], times: int = 1) -> Iterator[None]:
    """Have `times` strangers repeat an attack, each once a second, until the end."""
    end = threading.Event()

    def repeat() -> None:
        while True:
            with suppress(OSError, ValueError):
                attack()
            if end.wait(1.0):
                return

    with ThreadPoolExecutor(times) as strangers:
        attacks = [strangers.submit(repeat) for _ in range(times)]
        try:
            yield
        finally:
            end.set()
    for each in attacks:
        each.result()


def start_pods(victim: Guarded, namespace: str, gpus: int = 8, count: int = 3) -> None:
    """Create pods one after the other, and wait until each is bound."""
    pods = f"/api/v1/namespaces/{namespace}/pods"
    for _ in range(count):
        name = f"honest-{next(_numbers)}"
        victim.cluster.api.create(pods, gpu_pod(name, gpus, victim.scheduler))
        victim.cluster.wait(lambda: bound(victim.cluster, f"{pods}/{name}"), f"pod {name} is bound")  # noqa: B023
        victim.cluster.api.delete(f"{pods}/{name}")
        victim.cluster.wait(lambda: not victim.cluster.exists(f"{pods}/{name}"), "it is gone")  # noqa: B023


def figure(victim: Guarded, line: str) -> float:
    """Return a figure of the extender's metrics, 0 before it is there."""
    victim.cluster.wait(lambda: metrics(victim), "the metrics can be read")
    found = re.search(rf"^{re.escape(line)} (\S+)$", metrics(victim), re.MULTILINE)
    return float(found[1]) if found else 0.0


def metrics(victim: Guarded) -> str:
    with socket.create_connection(("127.0.0.1", victim.status), timeout=60) as stream, stream.makefile("rb") as answer:
        stream.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return answer.read().decode().partition("\r\n\r\n")[2]


def peak_kib(victim: Guarded) -> int:
    """The most memory that the extender ever had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{victim.pid}/status").read_text())
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("rate", [4, 50])
def test_pods_start_beside_posts_about_unknown_pods(victim: Guarded, namespace: str, rate: int) -> None:
    nodes = sorted(victim.cluster.ready_nodes())

    def attack() -> None:
        pod = gpu_pod(f"made-up-{next(_numbers)}", 8, "nobody", namespace="default", uid=f"made-up-{next(_numbers)}")
        assert filtered(victim.service, pod, nodes)["Error"]

    with beside(attack, rate):
        unknown = 'muster_extender_requests_total{outcome="unknown-pod",verb="filter"}'
        victim.cluster.wait(lambda: figure(victim, unknown) > rate, "the attack goes on")
        start_pods(victim, namespace)
    assert figure(victim, "muster_extender_pods_refused") == 0


def test_own_pending_pod_counts_on_one_node(victim: Guarded, namespace: str) -> None:
    """The stranger's own pod is known, but no scheduler ever places it; the other nodes are free for others."""
    nodes, pods = sorted(victim.cluster.ready_nodes()), f"/api/v1/namespaces/{namespace}/pods"
    pod = victim.cluster.api.create(pods, gpu_pod("waiting", 8, "nobody"))

    def attack() -> None:
        assert len(filtered(victim.service, pod, nodes)["NodeNames"]) <= 1  # none where an honest pod may go to either

    before = figure(victim, OPEN)
    with beside(attack):
        victim.cluster.wait(lambda: figure(victim, OPEN) > before, "the attack goes on")
        start_pods(victim, namespace)
    victim.cluster.api.delete(f"{pods}/waiting")


def test_large_bodies_cost_no_memory(victim: Guarded, namespace: str) -> None:
    before = peak_kib(victim)
    body = b" " * BIG
    with ThreadPoolExecutor(40) as strangers:
        for port in (victim.service, victim.own, victim.status):
            answers = list(strangers.map(lambda _, port=port: post(port, body), range(40)))
            assert not any(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert peak_kib(victim) < 1.5 * before
    start_pods(victim, namespace, count=1)


def test_slow_and_idle_connections_keep_nobody_out(victim: Guarded, namespace: str) -> None:
    begun = [b"", b"POST /filter HT", b"POST /filter HTTP/1.1\r\nContent-Length: 9\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]
    streams = []
    try:
        for number in range(400):
            streams.append(connect((victim.service, victim.status)[number % 2]))
            with suppress(OSError):
                streams[-1].sendall(begun[number // 2 % len(begun)])
        start_pods(victim, namespace)
        assert figure(victim, 'muster_extender_connections_closed_total{listener="status",reason="room"}') > 100
        unknown = gpu_pod("made-up", 8, "nobody", namespace="default", uid="made-up")
        assert filtered(victim.service, unknown, [])["Error"]
    finally:
        for stream in streams:
            stream.close()


def test_kube_scheduler_with_a_certificate_is_answered_and_others_are_not(
    cluster: LocalCluster, namespace: str, tmp_path: Path
) -> None:
    """A real kube-scheduler asks by TLS; a stranger gets no answer, and may leave handshakes open."""
    authority = CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    certificates.write(certificates.issue_server(authority, ["127.0.0.1"]), tmp_path, "tls")
    certificate, key = certificates.write(certificates.issue_client(authority, "kube-scheduler"), tmp_path, "client")
    files = {"certFile": str(certificate), "keyFile": str(key), "caFile": str(tmp_path / "ca.crt")}
    secure = {"enableHTTPS": True, "tlsConfig": files}
    with start_guarded(cluster, "secured", [f"--service-tls={tmp_path}"], tls=secure) as running:
        open_handshakes = [connect(running.service) for _ in range(100)]
        start_pods(running, namespace)
        assert not post(running.service, b"{}").startswith(b"HTTP/1.1 2")
        for stream in open_handshakes:
            stream.close()
        assert figure(running, OPEN) >= 3
        assert figure(running, 'muster_extender_connections_closed_total{listener="service",reason="handshake"}') > 60
