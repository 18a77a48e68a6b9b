"""A live cluster saved to a file: the API objects that a plan depends on, as JSON, and the time of reading.

Objects stay as the API server returned them, without the fields that no decision reads and that may be private (environment
and commands of containers, managed fields). The operator's own code therefore translates the file.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from muster.kube import paths
from muster.kube.client import Client
from muster.kube.store import T
from muster.simulator.yaml_errors import BadInput, Problem
from muster_operator.defaults import LIMIT_RANGES, RUNTIME_CLASSES
from muster_operator.dljob.decoding import DLJOBS
from muster_operator.dljob.gang import resources_of
from muster_operator.dljob.resources import PRIORITY_CLASSES
from muster_operator.dlqueue.usage import DLQUEUES
from muster_operator.resource_quotas.counting import RESOURCE_QUOTAS
from muster_operator.resources import NODES, PODS, Resource
from muster_operator.stores import Stores

KIND = "muster-snapshot/1"
UNREAD = {"managedFields", "env", "envFrom", "command", "args", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe"}
LISTED = "1"
"""The resource version given to each list and its items: an edited file need not have consistent ones."""


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
    limit_ranges: list[msgspec.Raw] = []
    runtime_classes: list[msgspec.Raw] = []
    """The last three are missing in files of muster 0.1."""


class _Head(msgspec.Struct):
    metadata: dict[str, Any]


async def take(client: Client) -> bytes:
    """Read a cluster and return the content of the file; raise KubeError."""
    lists = {
        "nodes": paths.nodes(),
        "pods": paths.pods(),
        "dljobs": paths.dljobs(),
        "dlqueues": paths.dlqueues(),
        "priority_classes": paths.priorityclasses(),
        "resource_quotas": RESOURCE_QUOTAS.path(),
        "limit_ranges": LIMIT_RANGES.path(),
        "runtime_classes": RUNTIME_CLASSES.path(),
    }
    objects = {name: [_lean(item) async for page in client.pages(path) for item in page.items] for name, path in lists.items()}
    return msgspec.json.format(msgspec.json.encode(Dump(KIND, time.time(), **objects)), indent=1) + b"\n"


def read(path: Path) -> tuple[Stores, float]:
    """Return the operator's stores filled from a file, and the time of the dump in seconds since 1970; raise BadInput."""
    try:
        dump = msgspec.json.decode(path.read_bytes(), type=Dump)
        if dump.kind != KIND:
            raise msgspec.ValidationError(f"found kind {dump.kind!r}; expected {KIND!r}, as `muster snapshot` writes it")
        stores = Stores(resources_of)
        stores.view.vouch(True)  # what the operator believed is not in the dump
        _fill(stores, LIMIT_RANGES, dump.limit_ranges)
        _fill(stores, RUNTIME_CLASSES, dump.runtime_classes)
        _fill(stores, NODES, dump.nodes)
        _fill(stores, PODS, dump.pods)
        _fill(stores, DLQUEUES, dump.dlqueues)
        _fill(stores, RESOURCE_QUOTAS, dump.resource_quotas)
        _fill(stores, PRIORITY_CLASSES, dump.priority_classes)
        _fill(stores, DLJOBS, dump.dljobs)
    except OSError as error:
        raise BadInput(path, [Problem(None, "", f"cannot be read: {error}")]) from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadInput(path, [Problem(None, "", f"is not a snapshot: {error}")]) from None
    return stores, dump.taken_at


def _fill(stores: Stores, resource: Resource[T], items: list[msgspec.Raw]) -> None:
    """Put objects into their store as if they had just been listed."""
    stores.of(resource).replace_all((resource.decode(_listed(item)) for item in items), LISTED)


def _listed(item: msgspec.Raw) -> bytes:
    metadata = msgspec.json.decode(item, type=_Head).metadata | {"resourceVersion": LISTED}
    return msgspec.json.encode(msgspec.json.decode(item, type=dict[str, msgspec.Raw]) | {"metadata": metadata})


def _lean(item: msgspec.Raw) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(_without(msgspec.json.decode(item))))


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(inner) for key, inner in value.items() if key not in UNREAD}
    return [_without(inner) for inner in value] if isinstance(value, list) else value
