"""A live cluster saved to a file: the API objects that a plan depends on, as JSON, and the time of reading.

Objects stay as the API server returned them, without the fields that no decision reads and that may be private (environment
and commands of containers, managed fields). The operator's own code therefore translates the file.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from muster.kube import paths
from muster.kube.client import Client
from muster.kube.objects import DLJob, Node, Pod
from muster.kube.store import KubeObject, Store
from muster.simulator.yaml_errors import BadInput, Problem
from muster_operator.dljob.resources import PRIORITY_CLASSES
from muster_operator.dlqueue.usage import DLQUEUES
from muster_operator.resource_quotas.counting import RESOURCE_QUOTAS
from muster_operator.stores import Stores

KIND = "muster-snapshot/1"
UNREAD = {"managedFields", "env", "envFrom", "command", "args", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe"}
LISTED = "1"
"""The resource version given to each list and its items: an edited file need not have consistent ones."""
T = TypeVar("T", bound=KubeObject)


class Dump(msgspec.Struct, rename="camel"):
    """The file; each object stays raw JSON."""

    kind: str
    taken_at: float
    """Seconds since 1970."""
    nodes: list[msgspec.Raw]
    pods: list[msgspec.Raw]
    dljobs: list[msgspec.Raw]
    dlqueues: list[msgspec.Raw]
    priority_classes: list[msgspec.Raw]
    resource_quotas: list[msgspec.Raw] = []
    """Missing in files of muster 0.1."""


async def take(client: Client) -> bytes:
    """Read a cluster and return the content of the file; raise KubeError."""
    lists = {
        "nodes": paths.nodes(),
        "pods": paths.pods(),
        "dljobs": paths.dljobs(),
        "dlqueues": paths.dlqueues(),
        "priority_classes": paths.priorityclasses(),
        "resource_quotas": RESOURCE_QUOTAS.path(),
    }
    objects = {name: [_lean(item) for item in (await client.list(path)).items] for name, path in lists.items()}
    return msgspec.json.format(msgspec.json.encode(Dump(KIND, time.time(), **objects)), indent=1) + b"\n"


def read(path: Path) -> tuple[Stores, float]:
    """Return the operator's stores filled from a file, and the time of the dump in seconds since 1970; raise BadInput."""
    try:
        dump = msgspec.json.decode(path.read_bytes(), type=Dump)
        if dump.kind != KIND:
            raise msgspec.ValidationError(f"found kind {dump.kind!r}; expected {KIND!r}, as `muster snapshot` writes it")
        stores = Stores()
        _fill(stores.view.nodes, dump.nodes, Node)
        _fill(stores.view.pods, dump.pods, Pod)
        _fill(stores.of(DLQUEUES), dump.dlqueues, DLQUEUES.type)
        _fill(stores.of(RESOURCE_QUOTAS), dump.resource_quotas, RESOURCE_QUOTAS.type)
        _fill(stores.of(PRIORITY_CLASSES), dump.priority_classes, PRIORITY_CLASSES.type)
        _fill(stores.view.jobs, dump.dljobs, DLJob)
    except OSError as error:
        raise BadInput(path, [Problem(None, "", f"cannot be read: {error}")]) from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadInput(path, [Problem(None, "", f"is not a snapshot: {error}")]) from None
    return stores, dump.taken_at


def _fill(store: Store[T], items: list[msgspec.Raw], kind: type[T]) -> None:
    """Put objects into a store as if they had just been listed."""
    store.replace_all((_listed(msgspec.json.decode(item, type=kind)) for item in items), LISTED)


def _listed(obj: Any) -> Any:
    return msgspec.structs.replace(obj, metadata=msgspec.structs.replace(obj.metadata, resource_version=LISTED))


def _lean(item: msgspec.Raw) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(_without(msgspec.json.decode(item))))


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(inner) for key, inner in value.items() if key not in UNREAD}
    return [_without(inner) for inner in value] if isinstance(value, list) else value
