"""Models: parsing of examples, GPU counts as in Kubernetes, and unchanged pod templates."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from muster.api import names
from muster.api.dljob import NAME_LIMIT, DLJob
from muster.api.dlqueue import DLQueue
from muster.api.podtemplate import Container, pod_gpus

MANIFESTS = Path(__file__).parent / "manifests"


def example(name: str) -> dict[str, Any]:
    manifest = yaml.safe_load((MANIFESTS / f"{name}.yaml").read_text())
    assert isinstance(manifest, dict)
    return manifest


@pytest.mark.parametrize(
    ("name", "roles", "gpus"),
    [
        ("minimal", ["worker"], 1),
        ("torchrun", ["worker"], 8),
        ("mpi", ["chief", "worker"], 8),
        ("parameter-server", ["chief", "worker", "ps", "evaluator"], 5),
        ("elastic", ["worker"], 4),
        ("suspended", ["worker"], 1),
    ],
)
def test_manifest_is_parsed(name: str, roles: list[str], gpus: int) -> None:
    job = DLJob.model_validate(example(name))
    assert list(job.spec.roles.present()) == roles
    assert job.gpus == gpus


def test_queue_is_parsed() -> None:
    assert DLQueue.model_validate(example("queue")).spec.gpus == 64


@pytest.mark.parametrize("name", ["torchrun", "parameter-server", "suspended"])
def test_template_is_dumped_unchanged(name: str) -> None:
    body = example(name)
    for role, spec in DLJob.model_validate(body).spec.roles.present().items():
        dumped = spec.template.model_dump(by_alias=True, exclude_unset=True)
        assert dumped == body["spec"]["roles"][role]["template"]


def container(gpus: int | str | None, restart: str | None = None) -> Container:
    limits = {} if gpus is None else {"nvidia.com/gpu": gpus}
    return Container.model_validate({"name": "c", "restartPolicy": restart, "resources": {"limits": limits}})


@pytest.mark.parametrize(
    ("containers", "init", "expected"),
    [
        ([container(2), container("1"), container(None)], [], 3),
        ([container(2)], [container(1), container(4)], 4),
        ([container(2)], [container(1)], 2),
        ([container(2)], [container(1, "Always")], 3),
        ([container(1)], [container(1, "Always"), container(4)], 5),
        ([container(1)], [container(4), container(1, "Always")], 4),
        ([Container(name="bare")], [], 0),
    ],
)
def test_pod_gpus_are_counted_as_by_kube_scheduler(containers: list[Container], init: list[Container], expected: int) -> None:
    assert pod_gpus(containers, init) == expected


def test_longest_pod_name_is_a_valid_hostname() -> None:
    body = example("parameter-server")
    body["metadata"]["name"] = "x" * NAME_LIMIT
    job = DLJob.model_validate(body).metadata.name
    for role, index in (("worker", 4095), ("evaluator", 0), ("ps", 1023)):
        assert len(names.pod_name(job, role, index)) <= 63


def test_unknown_status_field_is_ignored_and_unknown_spec_field_is_rejected() -> None:
    body = example("minimal") | {"status": {"phase": "Running", "mood": "good"}}
    assert DLJob.model_validate(body).status.phase == "Running"
    body["spec"]["mood"] = "good"
    with pytest.raises(ValidationError, match="mood"):
        DLJob.model_validate(body)
