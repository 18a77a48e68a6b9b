"""The command lines of the control plane's processes, and the configuration of a kube-scheduler. Pure.

Client limits are raised everywhere: the defaults (50 requests per second) would limit every measurement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muster.api import names
from muster_dev.local.files import Files
from muster_dev.local.nodes import KWOK

QPS, BURST = 2000, 4000
_LOOPBACK = "127.0.0.1"
# Left out: controllers that manage networks or clouds, and one that patches every node for its kubelet.
_CONTROLLERS = (
    "*",
    "-node-ipam-controller",
    "-node-route-controller",
    "-service-lb-controller",
    "-cloud-node-lifecycle-controller",
    "-ttl-controller",
)


@dataclass(frozen=True)
class Options:
    """The settings by which a control plane differs from the default."""

    apiserver_args: tuple[str, ...] = ()
    controller_args: tuple[str, ...] = ()
    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    """Set on API server, controller-manager and schedulers; a feature with its own API needs that in `runtime_config` too, or
    the API server waits for its objects forever."""
    runtime_config: Mapping[str, bool] = field(default_factory=dict)
    """API versions to serve in addition to the default, as in {"scheduling.k8s.io/v1alpha2": True}."""
    profiles: tuple[Mapping[str, Any], ...] = ()
    """Profiles of the default kube-scheduler in addition to "default-scheduler"."""
    node_grace_seconds: int = 40
    """Seconds without a renewal after which a node is Unknown; kwok renews each lease four times in that period. Set a long
    period (86400) for plain Node objects, and for thousands of kwok nodes: a renewal costs 3 ms of CPU."""


def etcd(files: Files, port: int, peer_port: int) -> list[str]:
    """Return etcd's arguments; it syncs nothing to disk, since a local cluster need not survive a crash of the machine."""
    client, peer = f"http://{_LOOPBACK}:{port}", f"http://{_LOOPBACK}:{peer_port}"
    return [
        f"--data-dir={files.directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--quota-backend-bytes=8589934592",
        "--log-level=warn",
    ]


def apiserver(files: Files, port: int, etcd_port: int, options: Options) -> list[str]:
    """Return kube-apiserver's arguments: RBAC, the default admission plugins, service accounts."""
    return [
        f"--etcd-servers=http://{_LOOPBACK}:{etcd_port}",
        f"--secure-port={port}",
        f"--bind-address={_LOOPBACK}",
        f"--advertise-address={_LOOPBACK}",
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.0.0.0/16",
        f"--tls-cert-file={files.certificate('serving.crt')}",
        f"--tls-private-key-file={files.certificate('serving.key')}",
        f"--client-ca-file={files.certificate('ca.crt')}",
        f"--service-account-key-file={files.certificate('token.pub')}",
        f"--service-account-signing-key-file={files.certificate('token.key')}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        *_mapping("feature-gates", options.feature_gates),
        *_mapping("runtime-config", options.runtime_config),
        *options.apiserver_args,
    ]


def controller_manager(files: Files, port: int, options: Options) -> list[str]:
    """Return kube-controller-manager's arguments: every controller except those of networks and clouds."""
    return [
        f"--kubeconfig={files.kubeconfig}",
        *_serving(files, port),
        f"--service-account-private-key-file={files.certificate('token.key')}",
        f"--root-ca-file={files.certificate('ca.crt')}",
        "--leader-elect=false",
        f"--kube-api-qps={QPS}",
        f"--kube-api-burst={BURST}",
        f"--controllers={','.join(_CONTROLLERS)}",
        "--node-monitor-period=1s",
        f"--node-monitor-grace-period={options.node_grace_seconds}s",
        *_mapping("feature-gates", options.feature_gates),
        *options.controller_args,
    ]


def scheduler(files: Files, port: int, config: Path, options: Options) -> list[str]:
    """Return kube-scheduler's arguments."""
    return [f"--config={config}", *_serving(files, port), *_mapping("feature-gates", options.feature_gates)]


def kwok(files: Files, stages: Path, options: Options) -> list[str]:
    """Return kwok's arguments; kwok renews a node's lease four times in its duration."""
    return [
        f"--kubeconfig={files.kubeconfig}",
        f"--config={stages}",
        f"--manage-nodes-with-label-selector={KWOK}=fake",
        f"--node-lease-duration-seconds={max(4, options.node_grace_seconds)}",
        "--cidr=10.128.0.0/9",
        "--v=WARN",
    ]


def scheduler_config(
    kubeconfig: Path, name: str, *, extender: str | None = None, profiles: Iterable[Mapping[str, Any]] = (), **more: Any
) -> dict[str, Any]:
    """Return the KubeSchedulerConfiguration of the scheduler `name`, which asks the extender at the URL `extender`, if any."""
    config: dict[str, Any] = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {"kubeconfig": str(kubeconfig), "qps": QPS, "burst": BURST},
        "profiles": [{"schedulerName": name}, *profiles],
    }
    if extender:
        # Packing compares all nodes; by default a sample of a large cluster is scored.
        config |= {"percentageOfNodesToScore": 100, "extenders": [extender_config(extender)]}
    return config | more


def extender_config(url: str) -> dict[str, Any]:
    """Return the entry for muster's extender in a KubeSchedulerConfiguration."""
    return {
        "urlPrefix": url,
        "filterVerb": "filter",
        "prioritizeVerb": "prioritize",
        "weight": 10,
        "httpTimeout": "5s",
        "nodeCacheCapable": True,
        "managedResources": [{"name": names.GPU, "ignoredByScheduler": False}],
        "ignorable": False,
    }


def _serving(files: Files, port: int) -> list[str]:
    certificate = [f"--tls-cert-file={files.certificate('serving.crt')}"]
    key = [f"--tls-private-key-file={files.certificate('serving.key')}"]
    return [f"--bind-address={_LOOPBACK}", f"--secure-port={port}", *certificate, *key]


def _mapping(flag: str, values: Mapping[str, bool]) -> list[str]:
    text = ",".join(f"{name}={str(value).lower()}" for name, value in sorted(values.items()))
    return [f"--{flag}={text}"] if text else []
