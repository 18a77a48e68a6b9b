"""The part of a pod template that muster reads; all other fields pass through unchanged.

The API server validates a template only when a pod is created from it, so the operator sends one pod of each role as a dry run
when a job arrives. This module declares only what muster relies on: GPU counts are integers, containers and volumes have names,
and fields set by muster are absent. CEL sees only declared fields.

All other fields are declared with any content: CEL's comparison of objects misses an undeclared field that replaces another
(k8s.io/apiserver, unstructuredMap.Equal), so the template would not be immutable.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from muster.api.base import Open, extra, immutable, rule
from muster.api.names import GPU, SCHEDULER
from muster.scheduling.topology.links import MOST_GPUS

COUNTS = "^(0|[1-9]|[1-5][0-9]|6[0-4])$"
"""The numbers from 0 to MOST_GPUS, the most GPUs of one node; CEL does not see the number in a string."""
GpuCount = Annotated[
    Annotated[int, Field(ge=0, le=MOST_GPUS)] | Annotated[str, Field(pattern=COUNTS)],
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": COUNTS, "minimum": 0, "maximum": MOST_GPUS}),
]
Name = Annotated[str, Field(min_length=1, max_length=63)]
CONTAINER_FIELDS = """
    args command env envFrom imagePullPolicy lifecycle livenessProbe ports readinessProbe resizePolicy restartPolicyRules
    securityContext startupProbe stdin stdinOnce terminationMessagePath terminationMessagePolicy tty volumeDevices
    volumeMounts workingDir"""
VOLUME_FIELDS = """
    awsElasticBlockStore azureDisk azureFile cephfs cinder configMap csi downwardAPI emptyDir ephemeral fc flexVolume
    flocker gcePersistentDisk gitRepo glusterfs hostPath image iscsi nfs persistentVolumeClaim photonPersistentDisk
    portworxVolume projected quobyte rbd scaleIO secret storageos vsphereVolume"""
POD_FIELDS = """
    activeDeadlineSeconds affinity automountServiceAccountToken dnsConfig dnsPolicy enableServiceLinks
    ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostnameOverride imagePullSecrets nodeSelector
    os overhead preemptionPolicy priority priorityClassName readinessGates resourceClaims resources runtimeClassName
    schedulingGates schedulingGroup securityContext serviceAccount serviceAccountName setHostnameAsFQDN
    shareProcessNamespace terminationGracePeriodSeconds tolerations topologySpreadConstraints workloadRef"""


def any_content(fields: str, *rules: dict[str, str]) -> ConfigDict:
    """Return the config of a model with these additional fields of any content."""

    def add(schema: dict[str, Any]) -> None:
        schema["properties"] |= {field: {"x-kubernetes-preserve-unknown-fields": True} for field in fields.split()}
        schema |= extra(*rules)

    return ConfigDict(json_schema_extra=add)


class Quantities(Open):
    """Quantities by resource name."""

    model_config = any_content("cpu memory ephemeral-storage")

    gpu: GpuCount | None = Field(default=None, alias=GPU)
    """The number of whole GPUs, as on one node at most."""


class Resources(Open):
    """The resource requirements of a container."""

    model_config = any_content("claims")

    limits: Quantities | None = None
    """Upper limits; GPUs are requested here."""
    requests: Quantities | None = None
    """Requests; for GPUs Kubernetes uses the limit."""


class Container(Open):
    """A container; any field of a Kubernetes container is allowed."""

    model_config = any_content(CONTAINER_FIELDS)

    name: Name
    """The container's name, unique in the pod."""
    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """The container's image."""
    restart_policy: Annotated[str, Field(max_length=32)] | None = None
    """Always makes an init container a sidecar."""
    resources: Resources | None = None
    """The container's resource requirements."""

    @property
    def gpus(self) -> int:
        """The number of GPUs in the container's limits."""
        limits = self.resources.limits if self.resources else None
        return int(limits.gpu or 0) if limits else 0


class Volume(Open):
    """A volume; any field of a Kubernetes volume is allowed."""

    model_config = any_content(VOLUME_FIELDS)

    name: Name
    """The volume's name, unique in the pod."""


def named_list(limit: int) -> Any:
    """Return the field of a list whose items have unique names."""
    return Field(max_length=limit, json_schema_extra=extra(list_type="map", list_map_keys=["name"]))


def set_by_muster(field: str) -> dict[str, str]:
    """Return the rule that a field of the pod spec set by muster is absent."""
    return rule(f"!has(self.{field})", f"{field} is set by muster: leave it out", at=f".{field}")


class PodSpec(Open):
    """A pod spec; any field of a Kubernetes pod spec is allowed, except those set by muster."""

    model_config = any_content(POD_FIELDS, set_by_muster("nodeName"), set_by_muster("hostname"), set_by_muster("subdomain"))

    containers: Annotated[list[Container], Field(min_length=1), named_list(32)]
    """The containers; their GPU limits add up to the pod's GPUs."""
    init_containers: Annotated[list[Container], named_list(32)] | None = None
    """Containers that run before the others."""
    volumes: Annotated[list[Volume], named_list(64)] | None = None
    """Volumes for the containers; checkpoint.volume names one of them."""
    restart_policy: Literal["Never", "OnFailure"] = "Never"
    """OnFailure lets the kubelet restart a failed container in place; Never makes each failure a failure of the gang."""
    scheduler_name: Literal["muster"] = SCHEDULER
    """Always muster: only muster's kube-scheduler honours the reservation."""
    node_name: Annotated[str, Field(max_length=253)] | None = None
    """Set by muster: leave it out."""
    hostname: Annotated[str, Field(max_length=63)] | None = None
    """Set by muster: leave it out."""
    subdomain: Annotated[str, Field(max_length=63)] | None = None
    """Set by muster: leave it out."""


class PodMeta(Open):
    """Labels and annotations of the pods, in addition to muster's own."""

    labels: dict[str, str] | None = None
    """Labels of the pods."""
    annotations: dict[str, str] | None = None
    """Annotations of the pods."""


class PodTemplate(Open):
    """The template of each pod of the role, as in a Job."""

    model_config = ConfigDict(json_schema_extra=extra(immutable("a role's template")))

    metadata: PodMeta | None = None
    """Labels and annotations of the pods."""
    spec: PodSpec
    """The pod spec."""

    @property
    def gpus(self) -> int:
        """The number of GPUs of one pod, as kube-scheduler counts them."""
        return pod_gpus(self.spec.containers, self.spec.init_containers or ())


def pod_gpus(containers: Iterable[Container], init: Iterable[Container]) -> int:
    """Return a pod's GPUs: the sum of containers and sidecars, or of an init container and its earlier sidecars, if larger."""
    sidecars = most = 0
    for container in init:
        if container.restart_policy == "Always":
            sidecars += container.gpus
        else:
            most = max(most, sidecars + container.gpus)
    return max(most, sidecars + sum(container.gpus for container in containers))
