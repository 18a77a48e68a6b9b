"""From the JSON of a DLJob to what the operator keeps of it; whatever is wrong with one is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

import msgspec
from pydantic import ValidationError

from muster.allocation.pods import charge_of, constraint_of, gpus_of, resources_of
from muster.allocation.relations import relations_of, untold
from muster.api import names
from muster.api.status import DLJobStatus, RoleName
from muster.kube import paths
from muster.kube.objects import DLJob, Meta, Pod, PodMeta, PodSpec, Struct, decoder
from muster.scheduling.gang import Task
from muster.scheduling.relations import UNRELATED
from muster.scheduling.resource_quota import Charge
from muster.scheduling.topology.eligibility import ANYWHERE
from muster_operator.dljob.completion import packed
from muster_operator.dljob.job import Job, Spec, Unreadable
from muster_operator.resources import Resource
from muster_operator.storage.needs import uses_of

MOST_BYTES = 128 << 10
"""Of all roles of a job, as JSON: room for a script or two, where templates have some thousand. Each pod is a copy of one."""

MOST_PARTS = 2_000
"""Texts and numbers of what is read of a template: a plan looks at all of them, for each pod. Templates have some dozens."""
MOST_CHARACTERS = 300
"""Of what is told about a job that cannot be read."""


class _Template(Struct, frozen=True):
    spec: PodSpec
    metadata: Any = None
    """Of any form: what is wrong with it is said by the API server, which knows."""


class _Size(Struct, frozen=True):
    replicas: int = 1


class _Role(Struct, frozen=True):
    template: _Template


R = TypeVar("R")


class _Roles(Struct, Generic[R], frozen=True):
    """The roles as the operator reads them, in the order in which the planner sees them."""

    worker: R
    chief: R | None = None
    ps: R | None = None
    evaluator: R | None = None

    def present(self) -> dict[RoleName, R]:
        roles: dict[RoleName, R | None] = {
            "chief": self.chief,
            "worker": self.worker,
            "ps": self.ps,
            "evaluator": self.evaluator,
        }
        return {name: role for name, role in roles.items() if role}


class _Object(msgspec.Struct):
    metadata: Meta
    spec: msgspec.Raw = msgspec.Raw(b"null")
    status: msgspec.Raw = msgspec.Raw(b"null")


_decode_object = decoder(_Object)
_decode_reserving = decoder(DLJob)
_decode_fields = decoder(dict[str, msgspec.Raw])
_decode_sizes = decoder(_Roles[_Size])
_decode_roles = decoder(_Roles[_Role])


def decode(body: bytes | msgspec.Raw) -> Job | Unreadable:
    """Decode a DLJob; raise MsgspecError where not even what it reserves can be read."""
    obj = _decode_object(body)
    try:
        status = DLJobStatus.model_validate_json(bytes(obj.status)) if bytes(obj.status) != b"null" else DLJobStatus()
        fields = _decode_fields(obj.spec)
        roles = fields.pop("roles", msgspec.Raw(b"null"))
        sizes = msgspec.json.encode({name: size.replicas for name, size in _decode_sizes(roles).present().items()})
        spec = Spec.model_validate_json(msgspec.json.encode(fields | {"roles": msgspec.Raw(sizes)}))
        return _short(_with_shapes(Job(obj.metadata, spec, status, {}, {}), roles))
    except (ValidationError, msgspec.MsgspecError, ValueError) as error:
        problem = f"DLJob {obj.metadata.key} cannot be read ({_in_words(error)}); is the CRD of this muster version installed?"
        return Unreadable(obj.metadata, _decode_reserving(body).reserved, problem)


def _in_words(error: Exception) -> str:
    """What is wrong, of several things the first, in bounded length."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:MOST_CHARACTERS]
    return str(error)[:MOST_CHARACTERS]


def _with_shapes(job: Job, roles: msgspec.Raw) -> Job:
    """The job with what its pods ask for, or with what is wrong with its templates."""
    size = len(bytes(roles))
    if size > MOST_BYTES and not job.status.placement:
        return replace(job, flaw=f"its roles have {size} bytes, more than the {MOST_BYTES} that muster takes", **_nothing(job))
    try:
        templates = {name: role.template for name, role in _decode_roles(roles).present().items()}
        if size > MOST_PARTS and not job.status.placement and (flaw := _too_many_parts(templates)):
            return replace(job, flaw=flaw, **_nothing(job))
        pods = {name: _pod(job, name, template) for name, template in templates.items()}
        shapes = {name: _shape(name, pod) for name, pod in pods.items()}
        host_network = frozenset(name for name, pod in pods.items() if pod.spec.host_network)
        charges = {name: charge_of(pod) for name, pod in pods.items()}
        volumes = tuple((name, uses) for name, pod in pods.items() if (uses := uses_of(pod.spec)))
        kept = {name: packed(pod.spec) for name, pod in pods.items()}
        return replace(job, shapes=shapes, charges=charges, packed=kept, host_network=host_network, volumes=volumes)
    except (msgspec.MsgspecError, ValueError) as error:
        return replace(job, flaw=f"a template of its roles is no pod template: {error}", **_nothing(job))


def _too_many_parts(templates: Mapping[RoleName, _Template]) -> str:
    """What is wrong with the first template of which there is too much to plan with; "" if there is none."""
    for name, template in templates.items():
        if (parts := _parts(msgspec.to_builtins(template.spec))) > MOST_PARTS:
            which = "containers, tolerations, affinities, volumes and the like"
            return (
                f"the template of role {name} has {parts} values in its {which}, more than the {MOST_PARTS} that muster takes"
            )
    return ""


def _parts(value: Any) -> int:
    """Count the texts and numbers in a value; what is read is never deep."""
    if isinstance(value, dict | list):
        return sum(map(_parts, value.values() if isinstance(value, dict) else value))
    return 1


def _nothing(job: Job) -> dict[str, Any]:
    """Shapes and charges of pods that ask for nothing."""
    nothing = Pod(PodMeta(name=""), PodSpec())
    pods = {role: _pod(job, role, _Template(PodSpec())) for role in job.replicas}
    return {
        "shapes": {role: _shape(role, pod) for role, pod in pods.items()},
        "charges": {role: charge_of(nothing) for role in job.replicas},
    }


def _short(job: Job) -> Job:
    """Drop what only a plan asks about, constraints for one, where there is none: what changes that brings the JSON again."""
    if job.plannable:
        return job
    shapes = {role: replace(shape, where=ANYWHERE, relations=UNRELATED) for role, shape in job.shapes.items()}
    return replace(job, shapes=shapes, charges=dict.fromkeys(job.charges, Charge()), packed={}, volumes=())


DLJOBS: Resource[Job | Unreadable] = Resource(paths.MUSTER, "dljobs", decode)


def _pod(job: Job, role: RoleName, template: _Template) -> Pod:
    """A pod of a role, as far as it says what it asks for: its own labels and those that all pods of the role get."""
    labels = {**_labels(template.metadata), names.JOB: job.meta.name, names.QUEUE: job.spec.queue, names.ROLE: role}
    return Pod(PodMeta(name="", namespace=job.meta.namespace, labels=labels), template.spec)


def _labels(metadata: Any) -> dict[str, str]:
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return {key: value for key, value in labels.items() if isinstance(value, str)} if isinstance(labels, dict) else {}


def _shape(role: RoleName, pod: Pod) -> Task:
    return Task("", gpus_of(pod), resources_of(pod), constraint_of(pod.spec), role, relations=untold(relations_of(pod)))
