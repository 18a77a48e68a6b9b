"""Checks that the API server knows muster's kinds as this operator writes them, before anything is written.

Without its definitions the operator has nothing to do. With those of an older muster, the API server would silently drop fields
of a status that it does not know, a reservation among them perhaps. So the operator waits, and says for what. Newer definitions
are fine: fields are only ever added.
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
CHECK_SECONDS = 2.0
_REMEDY = "`helm upgrade` brings it, or `kubectl apply --server-side --force-conflicts --filename crds/`"
Json = dict[str, Any]


class CrdCheck:
    """The definitions that the operator needs; `trouble` says what is wrong with them."""

    def __init__(self, client: Client) -> None:
        self.trouble = "has not checked the definitions yet"
        self._client, self._wanted = client, crd.manifests()

    async def wait(self) -> None:
        """Wait until all definitions are there and complete."""
        while trouble := await self.check():
            if trouble != self.trouble:
                log.warning("waits: %s", trouble)
            self.trouble = trouble
            await asyncio.sleep(CHECK_SECONDS)
        self.trouble = ""

    async def check(self) -> str:
        """Return what is wrong now; empty if nothing is."""
        try:
            for wanted in self._wanted:
                listing = await self._client.list(PATH, fieldSelector=f"metadata.name={wanted['metadata']['name']}")
                served = [json.loads(bytes(item)) for item in listing.items]
                if problem := compare(wanted, served[0] if served else None):
                    return problem
        except KubeError as error:
            return f"cannot read the definitions: {error}"
        return ""


def compare(wanted: Json, served: Json | None) -> str:
    """Return what is wrong with the definition that the API server serves; empty if it has every field of `wanted`."""
    name = wanted["metadata"]["name"]
    if served is None or "deletionTimestamp" in served["metadata"]:
        return f"the definition {name} is not there: {_REMEDY}"
    lacking = sorted(_fields(_schema(wanted)) - _fields(_schema(served)))
    if not lacking:
        return ""
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    return f"the definition {name} is older than this operator, it lacks {lacking[0]}{more}: {_REMEDY}"


def _schema(definition: Json) -> Json:
    versions = [each for each in definition["spec"]["versions"] if each["name"] == names.VERSION and each["served"]]
    schema: Json = versions[0]["schema"]["openAPIV3Schema"] if versions else {}
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
