"""Whether the API server knows DLJobs and DLQueues as this operator writes them, before anything is written.

Without its definitions there is nothing to do; with those of an older muster the API server would drop, without a word, the
fields of a status that it does not know: among them may be what holds a reservation. So the operator waits, and says for what.
Newer definitions are fine: fields are only ever added.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

from muster.api import crd, names
from muster.kube.client import Client
from muster.kube.errors import KubeError

log = logging.getLogger("muster.operator")

PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
LOOK_SECONDS = 2.0
_REMEDY = "`helm upgrade` brings it, or `kubectl apply --server-side --force-conflicts --filename crds/`"
Json = dict[str, Any]


class Definitions:
    """What the operator needs to find; `trouble` says what is missing."""

    def __init__(self, client: Client) -> None:
        self.trouble = "has not looked for its definitions yet"
        self._client, self._wanted = client, crd.manifests()

    async def wait(self) -> None:
        """Wait until both definitions are there, and whole."""
        while trouble := await self.look():
            if trouble != self.trouble:
                log.warning("waits: %s", trouble)
            self.trouble = trouble
            await asyncio.sleep(LOOK_SECONDS)
        self.trouble = ""

    async def look(self) -> str:
        """Return what is missing now; empty if nothing is."""
        try:
            for wanted in self._wanted:
                listing = await self._client.list(PATH, fieldSelector=f"metadata.name={wanted['metadata']['name']}")
                found = [json.loads(bytes(item)) for item in listing.items]
                if problem := compare(wanted, found[0] if found else None):
                    return problem
        except KubeError as error:
            return f"cannot look for its definitions: {error}"
        return ""


def compare(wanted: Json, found: Json | None) -> str:
    """Return what is wrong with a definition as the API server has it; empty if it knows each field of the one wanted."""
    name = wanted["metadata"]["name"]
    if found is None or "deletionTimestamp" in found["metadata"]:
        return f"the definition {name} is not there: {_REMEDY}"
    lacking = sorted(_fields(_schema(wanted)) - _fields(_schema(found)))
    if not lacking:
        return ""
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    return f"the definition {name} is older than this operator, it lacks {lacking[0]}{more}: {_REMEDY}"


def _schema(definition: Json) -> Json:
    served = [each for each in definition["spec"]["versions"] if each["name"] == names.VERSION and each["served"]]
    schema: Json = served[0]["schema"]["openAPIV3Schema"] if served else {}
    return schema


def _fields(schema: Json, path: str = "") -> set[str]:
    return {f"{path}.{name}" for name in schema.get("properties", {})} | {
        field for step, below in _below(schema) for field in _fields(below, f"{path}{step}")
    }


def _below(schema: Json) -> Iterator[tuple[str, Json]]:
    yield from ((f".{name}", below) for name, below in schema.get("properties", {}).items())
    for keyword, step in (("items", "[]"), ("additionalProperties", ".*")):
        if isinstance(schema.get(keyword), dict):
            yield step, schema[keyword]
