"""The models read what users write, count GPUs as Kubernetes does, and hand pod templates on unchanged."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from muster.api import names
from muster.api.dljob import NAME_LIMIT, DLJob
from muster.api.dlqueue import DLQueue
from muster.api.podtemplate import Container, pod_gpus

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> dict[str, Any]:
    found = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("name", "roles", "gpus"),
    [
        ("minimal", ["worker"], 1),
        ("torchrun", ["worker"], 8),
        ("mpi", ["chief", "worker"], 8),
        ("parameter-server", ["chief", "worker", "ps", "evaluator"], 5),
        ("elastic", ["worker"], 4),
        ("suspended", ["worker"], 1),
        ("allreduce", ["worker"], 16),
    ],
)
def test_examples_are_read(name: str, roles: list[str], gpus: int) -> None:
    job = DLJob.model_validate(example(name))
    assert list(job.spec.roles.present()) == roles
    assert job.gpus == gpus


def test_every_example_is_tested_and_the_queue_is_read() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == {
        *("minimal", "torchrun", "mpi", "parameter-server", "elastic", "suspended", "allreduce", "queue")
    }
    assert DLQueue.model_validate(example("queue")).spec.gpus == 64


@pytest.mark.parametrize("name", ["torchrun", "parameter-server", "suspended"])
def test_templates_are_handed_on_unchanged(name: str) -> None:
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
def test_gpus_of_a_pod_are_counted_as_kube_scheduler_does(
    containers: list[Container], init: list[Container], expected: int
) -> None:
    assert pod_gpus(containers, init) == expected


def test_the_longest_pod_name_is_a_hostname() -> None:
    body = example("parameter-server")
    body["metadata"]["name"] = "x" * NAME_LIMIT
    job = DLJob.model_validate(body).metadata.name
    for role, index in (("worker", 4095), ("evaluator", 0), ("ps", 1023)):
        assert len(names.pod_name(job, role, index)) <= 63


def test_a_status_of_a_newer_version_is_read_and_a_spec_is_not() -> None:
    body = example("minimal") | {"status": {"phase": "Running", "mood": "good"}}
    assert DLJob.model_validate(body).status.phase == "Running"
    body["spec"]["mood"] = "good"
    with pytest.raises(ValidationError, match="mood"):
        DLJob.model_validate(body)
