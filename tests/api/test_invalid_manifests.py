"""More than a thousand invalid manifests: each is rejected with a message that names the field; boundary values are accepted.

The table is written by hand, not derived from the schema, so that a bound missing from the schema is detected here. The models
must reject schema errors too (a wrong type, a value out of range); only the API server evaluates CEL rules.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml
from pydantic import ValidationError

from muster.api.dljob import DLJob
from muster.api.dlqueue import DLQueue

if TYPE_CHECKING:
    from api.conftest import Server

pytestmark = pytest.mark.cluster
MANIFESTS = Path(__file__).parent / "manifests"
MODELS: dict[str, type[DLJob | DLQueue]] = {"DLJob": DLJob, "DLQueue": DLQueue}
Manifest = dict[str, Any]
NO_INTEGER = ["three", "", 1.5, True, [], [1], {}]
NO_TEXT = [7, 1.5, True, [], ["x"], {}]
NO_OBJECT = ["text", "", 7, True, [], [{}]]
NO_LIST = ["text", 7, True, {}, {"name": "x"}]
INT32 = 2**31 - 1
LABELS = ([*NO_TEXT, "", "Upper", "under_score", "dot.ted", "-a", "a-", "a" * 64], ["a", "0", "a-1", "a" * 63])


class Kind(NamedTuple):
    """Invalid and valid values of a field."""

    bad: list[Any]
    good: list[Any]


class Bad(NamedTuple):
    """An invalid manifest, and the field that the message must name."""

    manifest: Manifest
    field: str
    about: str


def integer(low: int, high: int) -> Kind:
    return Kind([*NO_INTEGER, low - 1, high + 1, -(10**12)], [low, high])


def choice(*values: str) -> Kind:
    return Kind([*NO_TEXT, "", "Other", values[0].swapcase(), f"{values[0]} "], list(values))


BOOLEAN = Kind(["true", "", "yes", 0, 1, 1.5, [], {}], [True, False])
DOMAIN = choice("Node", "Rack", "Block")
OBJECT = Kind(NO_OBJECT, [])
LIST = Kind([*NO_LIST, []], [])
GPUS = Kind(
    [-1, "-1", 1.5, "1.5", "two", "", "1k", "01", " 1", 65, "65", 9999, "100", True, [], {}], [1, "1", 10, "10", 64, "64"]
)
LABEL = Kind(*LABELS)
NAME = Kind([*NO_TEXT, "", "a" * 64], ["a", "a" * 63])
TEXT_MAP = Kind([*NO_OBJECT, {"a": 1}, {"a": True}, {"a": []}, {"a": {}}], [{}, {"a": "b"}])
POD = "template.spec"
CONTAINER = f"{POD}.containers[0]"

SPEC = {
    "queue": LABEL,
    "priority": integer(-(10**9), 10**9),
    "priorityClassName": Kind([*NO_TEXT, "", "a" * 254], []),
    "roles": OBJECT,
    "rendezvous": choice("Torchrun", "MPI", "ParameterServer", "None"),
    "placement": OBJECT,
    "placement.policy": choice("Pack", "Spread"),
    "placement.required": DOMAIN,
    "placement.preferred": DOMAIN,
    "placement.sensitivity": choice("Auto", "High", "Low"),
    "elastic": OBJECT,
    "elastic.minReplicas": integer(1, 4096),
    "elastic.maxReplicas": integer(1, 4096),
    "sharing": OBJECT,
    "sharing.timeSlicing": BOOLEAN,
    "sharing.packing": BOOLEAN,
    "checkpoint": OBJECT,
    "checkpoint.mode": choice("Checkpoint", "Pause"),
    "checkpoint.volume": LABEL,
    "checkpoint.everyMiniBatches": integer(1, INT32),
    "checkpoint.deadlineSeconds": integer(1, 86400),
    "backoffLimit": integer(0, INT32),
    "startDeadlineSeconds": integer(1, INT32),
    "startRetries": integer(0, INT32),
    "suspend": BOOLEAN,
    "activeDeadlineSeconds": integer(1, INT32),
    "ttlSecondsAfterFinished": integer(0, INT32),
}
REPLICAS = {"worker": integer(1, 4096), "chief": integer(1, 1), "ps": integer(1, 1024), "evaluator": integer(1, 1)}
ROLE = {
    "template": OBJECT,
    "template.metadata": OBJECT,
    "template.metadata.labels": TEXT_MAP,
    "template.metadata.annotations": TEXT_MAP,
    POD: OBJECT,
    f"{POD}.containers": LIST,
    f"{POD}.initContainers": Kind(NO_LIST, []),
    f"{POD}.volumes": Kind(NO_LIST, []),
    f"{POD}.volumes[0].name": NAME,
    f"{POD}.restartPolicy": choice("Never", "OnFailure"),
    f"{POD}.schedulerName": choice("muster"),
    CONTAINER: OBJECT,
    f"{CONTAINER}.name": NAME,
    f"{CONTAINER}.image": Kind([*NO_TEXT, "", "a" * 1025], ["a", "a" * 1024]),
    f"{CONTAINER}.restartPolicy": Kind([*NO_TEXT, "a" * 33], ["Always"]),
    f"{CONTAINER}.resources": OBJECT,
    f"{CONTAINER}.resources.limits": OBJECT,
    f"{CONTAINER}.resources.requests": OBJECT,
    f"{CONTAINER}.resources.limits.nvidia.com/gpu": GPUS,
    f"{CONTAINER}.resources.requests.nvidia.com/gpu": GPUS,
}
ROLE |= {path.replace("containers", "initContainers"): kind for path, kind in ROLE.items() if CONTAINER in path}
CLOSED = ["placement", "elastic", "sharing", "checkpoint", "roles"]
"""Objects of the spec in which an unknown field is an error."""


def fields(manifest: Manifest) -> dict[str, Kind]:
    """Return the kinds of all fields of a DLJob's spec, by path."""
    roles = manifest["spec"]["roles"]
    table = {f"spec.{path}": kind for path, kind in SPEC.items()}
    for role in roles:
        table[f"spec.roles.{role}.replicas"] = REPLICAS[role]
        table |= {f"spec.roles.{role}.{path}": kind for path, kind in ROLE.items()}
    return table


def steps(path: str) -> list[str | int]:
    """Split a path in the notation of the API server into keys and indices."""
    path = path.replace("nvidia.com/gpu", "GPU").replace("[", ".").replace("]", "")
    named = {"GPU": "nvidia.com/gpu"}
    return [int(part) if part.isdigit() else named.get(part, part) for part in path.split(".")]


def put(manifest: Manifest, path: str, value: object) -> Manifest | None:
    """Return the manifest with a field set; None if its parent object is missing."""
    result = copied(manifest)
    *parents, last = steps(path)
    holder: Any = result
    for step in parents:
        if isinstance(step, str) and step not in holder:
            return None
        holder = holder[step]
    holder[last] = value
    return result


def drop(manifest: Manifest, path: str) -> Manifest | None:
    """Return the manifest without a field; None if the field is missing."""
    result = copied(manifest)
    *parents, last = steps(path)
    holder: Any = result
    for step in parents:
        if isinstance(step, str) and step not in holder:
            return None
        holder = holder[step]
    if isinstance(last, str) and last not in holder:
        return None
    del holder[last]
    return result


def load(name: str) -> Manifest:
    manifest = yaml.safe_load((MANIFESTS / f"{name}.yaml").read_text())
    assert isinstance(manifest, dict)
    return copied(manifest)


def copied(manifest: Manifest) -> Manifest:
    """Return a deep copy without shared objects, which YAML aliases create."""
    copy: Manifest = json.loads(json.dumps(manifest))
    return copy


JOBS = {name: load(name) for name in ("minimal", "torchrun", "mpi", "parameter-server", "elastic", "suspended")}


def wrong_values() -> Iterator[Bad]:
    """Yield each example with each invalid value in each field."""
    for name, manifest in JOBS.items():
        for path, kind in fields(manifest).items():
            for value in kind.bad:
                if made := put(manifest, path, value):
                    yield Bad(made, path, f"{name}: {path} = {value!r}")


def unknown_fields() -> Iterator[Bad]:
    """Yield each example with an unknown field in each of muster's own objects."""
    for name, manifest in JOBS.items():
        roles = [f"roles.{role}" for role in manifest["spec"]["roles"]]
        for holder in ("spec", *(f"spec.{path}" for path in (*CLOSED, *roles))):
            for field in ("nonsense", "Replicas", "queues", "min-replicas"):
                if made := put(manifest, f"{holder}.{field}", 1):
                    yield Bad(made, f"{holder}.{field}", f"{name}: unknown {holder}.{field}")


def missing_fields() -> Iterator[Bad]:
    """Yield each example with each required field missing or null."""
    for name, manifest in JOBS.items():
        role_fields = ("template", POD, f"{POD}.containers", f"{CONTAINER}.name")
        of_roles = [f"roles.{role}.{field}" for role in manifest["spec"]["roles"] for field in role_fields]
        for path in ("spec", "spec.roles", "spec.roles.worker", "spec.elastic.maxReplicas", *(f"spec.{p}" for p in of_roles)):
            for made in (drop(manifest, path), drop(manifest, path) and put(manifest, path, None)):
                if made:
                    yield Bad(made, path, f"{name}: no {path}")


def bad_names() -> Iterator[Bad]:
    """Yield manifests with names that are invalid in names of pods or Services."""
    for name in ("Upper", "under_score", "dot.ted", "-a", "a-", "1a", "a" * 51, "ä", "a b"):
        made = put(JOBS["minimal"], "metadata.name", name)
        assert made
        yield Bad(made, "metadata.name", f"name {name}")


def bad_queues() -> Iterator[Bad]:
    """Yield invalid DLQueues."""
    queue = load("queue")
    table = {"spec": OBJECT, "spec.gpus": integer(0, INT32)}
    cases = [(path, value) for path, kind in table.items() for value in kind.bad]
    cases += [("spec.nonsense", 1), ("metadata.name", "dot.ted"), ("metadata.name", "a" * 64)]
    for path, value in cases:
        made = put(queue, path, value)
        assert made
        yield Bad(made, path, f"queue: {path} = {value!r}")


TWINS = [{"name": "ckpt"}, {"name": "ckpt"}]
INIT = "spec.roles.worker.template.spec.initContainers[1]"
VOLUME = "spec.roles.worker.template.spec.volumes"
RULES: list[tuple[str, dict[str, Any], str, str]] = [
    ("torchrun", {"spec.priorityClassName": "high"}, "spec.priorityClassName", "exclude each other"),
    ("torchrun", {"spec.roles.ps": JOBS["parameter-server"]["spec"]["roles"]["ps"]}, "spec.roles.ps", "Torchrun"),
    ("mpi", {"spec.roles.ps": JOBS["parameter-server"]["spec"]["roles"]["ps"]}, "spec.roles.ps", "MPI"),
    ("mpi", {"spec.rendezvous": "Torchrun"}, "spec.roles.chief", "Torchrun"),
    ("mpi", {"spec.rendezvous": "ParameterServer"}, "spec.roles.ps", "ParameterServer needs roles.ps"),
    ("minimal", {"spec.rendezvous": "ParameterServer"}, "spec.roles.ps", "ParameterServer needs roles.ps"),
    ("parameter-server", {"spec.rendezvous": "MPI"}, "spec.roles.evaluator", "MPI"),
    ("elastic", {"spec.elastic.minReplicas": 9}, "spec.elastic.minReplicas", "must not exceed elastic.maxReplicas"),
    ("elastic", {"spec.elastic.minReplicas": 5}, "spec.roles.worker.replicas", "between"),
    ("elastic", {"spec.elastic.maxReplicas": 3}, "spec.roles.worker.replicas", "between"),
    ("elastic", {"spec.roles.worker.replicas": 1}, "spec.roles.worker.replicas", "between"),
    ("elastic", {"spec.roles.worker.replicas": 9}, "spec.roles.worker.replicas", "between"),
    ("elastic", {"spec.checkpoint": {"mode": "Checkpoint"}}, "spec.checkpoint.volume", "needs checkpoint.volume"),
    ("elastic", {"spec.checkpoint": {}}, "spec.checkpoint.volume", "needs checkpoint.volume"),
    ("elastic", {"spec.checkpoint.volume": "other"}, "spec.checkpoint.volume", "no volume named other"),
    ("suspended", {"spec.checkpoint.volume": "other"}, "spec.checkpoint.volume", "no volume named other"),
    ("elastic", {VOLUME: []}, "spec.checkpoint.volume", "no volume named checkpoints"),
    ("torchrun", {f"{VOLUME}[0].name": "other"}, "spec.checkpoint.volume", "no volume named ckpt"),
    ("torchrun", {"spec.placement.preferred": "Block"}, "spec.placement.preferred", "Block, wider than"),
    ("mpi", {"spec.placement.required": "Node"}, "spec.placement.preferred", "Rack, wider than"),
    ("torchrun", {VOLUME: TWINS}, f"{VOLUME}[1]", "Duplicate"),
    ("minimal", {"spec.roles.worker.template.spec.initContainers": TWINS}, INIT, "Duplicate"),
    ("mpi", {"spec.roles.chief.template.spec.containers": TWINS}, "spec.roles.chief.template.spec.containers[1]", "Duplicate"),
]
for job in ("minimal", "parameter-server", "mpi"):
    worker = f"spec.roles.worker.{CONTAINER}.resources.limits.nvidia.com/gpu"
    needed = ("spec.roles.worker.template.spec.containers", "1 or more")
    RULES += [(job, {worker: value}, *needed) for value in (0, "0")]
    RULES += [(job, {f"spec.roles.worker.{CONTAINER}.resources": {}}, *needed)]
    RULES += [(job, {f"spec.roles.worker.{CONTAINER}.resources.limits": {"cpu": 1}}, *needed)]
    for taken in ("nodeName", "hostname", "subdomain"):
        RULES.append((job, {f"spec.roles.worker.{POD}.{taken}": "x"}, f"spec.roles.worker.{POD}.{taken}", "set by muster"))


@pytest.mark.parametrize(("name", "patch", "field", "words"), RULES)
def test_rule_violation_is_rejected_with_field_and_message(
    server: "Server", name: str, patch: dict[str, Any], field: str, words: str
) -> None:
    made: Manifest | None = JOBS[name]
    for path, value in patch.items():
        assert made
        made = put(made, path, value)
    assert made
    answer = server.create(made, dry=True)
    assert answer.status == 422, answer.body
    causes = {cause["field"]: cause["message"] for cause in answer.body["details"]["causes"]}
    assert words in causes[field]


def test_thousand_invalid_manifests_are_rejected_with_the_field(server: "Server") -> None:
    bad = [*wrong_values(), *unknown_fields(), *missing_fields(), *bad_names(), *bad_queues()]
    assert len({json.dumps(case.manifest) for case in bad}) >= 1000
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda case: server.create(case.manifest, dry=True), bad))
    accepted = [case.about for case, answer in zip(bad, answers, strict=True) if answer.status not in (400, 422)]
    assert not accepted
    named = [is_named(case.field, answer.body) for case, answer in zip(bad, answers, strict=True)]
    assert [case.about for case, is_so in zip(bad, named, strict=True) if not is_so] == []


def is_named(field: str, body: dict[str, Any]) -> bool:
    """Return whether a rejection names the field or a nested one."""
    causes = body.get("details", {}).get("causes", ())
    named = [cause.get("field", "") for cause in causes] + re.findall('unknown field "([^"]*)"', body["message"])
    return any(name == field or name.startswith((f"{field}.", f"{field}[")) for name in named)


def is_read(manifest: Manifest) -> bool:
    try:
        MODELS[manifest["kind"]].model_validate_json(json.dumps(manifest), strict=True)
    except ValidationError:
        return False
    return True


def test_models_reject_what_the_schema_rejects() -> None:
    bad = [*wrong_values(), *unknown_fields(), *missing_fields(), *bad_names(), *bad_queues()]
    assert [case.about for case in bad if is_read(case.manifest)] == []


def test_boundary_values_are_accepted(server: "Server") -> None:
    good = [
        (path, value, made)
        for manifest in JOBS.values()
        for path, kind in fields(manifest).items()
        for value in kind.good
        if (made := put(manifest, path, value))
    ]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda case: server.create(case[2], dry=True), good))
    by_rule = [answer for answer in answers if answer.status != 201]
    assert [answer.message for answer in by_rule if not only_rules(answer.body)] == []
    assert len(by_rule) < len(good) / 3
    assert [(path, value) for path, value, made in good if not is_read(made)] == []


def only_rules(body: dict[str, Any]) -> bool:
    """Return whether only CEL rules reject a manifest: a value within its bounds can still contradict another field."""
    causes = body["details"]["causes"]
    of_rules = (
        "exclude",
        "is not allowed with",
        "ParameterServer needs",
        "between",
        "must not exceed",
        "wider",
        "no volume named",
    )
    return all(any(words in cause["message"] for words in (*of_rules, "needs checkpoint.volume")) for cause in causes)
