"""kind-config.yaml, the file that it mounts, and the chart agree on the address of the extender."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import yaml

from muster_dev.kind import cluster, default_scheduler
from muster_dev.kind.images import PROJECT

CONFIG = yaml.safe_load((PROJECT / "kind-config.yaml").read_text())
SCHEDULER = yaml.safe_load((PROJECT / default_scheduler.FILE).read_text())


def test_configuration_of_the_scheduler_is_up_to_date() -> None:
    assert default_scheduler.scheduler_config() == SCHEDULER, "run `make generate`"


def test_control_plane_mounts_the_configuration_that_its_scheduler_reads() -> None:
    (node,) = (node for node in CONFIG["nodes"] if node["role"] == "control-plane")
    (mount,) = node["extraMounts"]
    assert mount["hostPath"] == default_scheduler.FILE  # from the directory of both
    (patch,) = map(yaml.safe_load, node["kubeadmConfigPatches"])
    (argument,), (volume,) = patch["scheduler"]["extraArgs"], patch["scheduler"]["extraVolumes"]
    assert argument == {"name": "config", "value": mount["containerPath"]}
    assert (volume["hostPath"], volume["mountPath"]) == (mount["containerPath"], mount["containerPath"])


def test_extender_has_the_address_that_the_scheduler_asks() -> None:
    service = cluster.chart_values()["scheduler"]["extenderService"]
    (extender,) = SCHEDULER["extenders"]
    assert extender["urlPrefix"] == f"http://{service['clusterIP']}:8888"
    assert ip_address(service["clusterIP"]) in ip_network(CONFIG["networking"]["serviceSubnet"])
    assert not extender["ignorable"]
