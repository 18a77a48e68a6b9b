"""Requests and answers of a scheduler extender: extender/v1/types.go of Kubernetes as msgspec Structs.

The Go types carry no JSON tags, so their keys are the Go field names; the objects inside keep the API's camelCase. A
scheduler with `nodeCacheCapable: true` sends names (160 kB for 5,000 nodes) and accepts only names that it sent. One without
it would send whole nodes (44 MB), which are refused.

Whoever sends a request decides what is in it, and 2 MiB of containers take 0.4 s to decode. So of the pod only what names it is
decoded, which takes 30 ms at the most, and the rest where it counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from muster.allocation.pods import gpus_of
from muster.kube import objects

NOTHING: Final = msgspec.Raw(b"null")
MOST_NODES: Final = 20_000
"""Nodes in one request: four times what Kubernetes supports in a cluster."""
LONGEST_NAME: Final = 253
"""Characters of a node's name: the API server's own limit."""


class Wire(msgspec.Struct, rename="pascal", gc=False):
    """Base: Go field names on the wire."""


class AskedMeta(msgspec.Struct, gc=False):
    """What names the pod in question."""

    name: str
    namespace: str | None = None
    uid: str = ""

    @property
    def key(self) -> str:
        """NAMESPACE/NAME, as the view has it."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class AskedPod(msgspec.Struct, gc=False):
    """The pod in question as the body has it: its word counts only for a pod that the view does not know."""

    metadata: AskedMeta
    spec: msgspec.Raw

    def gpus(self) -> int:
        """Count the GPUs that the pod says it asks for; raise WrongShape."""
        try:
            return gpus_of(objects.Pod(objects.PodMeta(self.metadata.name), _decode_spec(self.spec)))
        except _NOT_SO as error:
            raise WrongShape(_no_args(error, "$.Pod.spec")) from error


class ExtenderArgs(Wire):
    """The body of filter and prioritize; `nodes` stays as it is, since a scheduler is to send names."""

    pod: AskedPod
    nodes: msgspec.Raw = NOTHING
    node_names: msgspec.Raw = NOTHING

    def names(self) -> list[str]:
        """Return the names of the nodes in question, in the order they came; raise WrongShape."""
        try:
            return _decode_names(self.node_names) or []
        except _NOT_SO as error:
            raise WrongShape(_no_args(error, "$.NodeNames")) from error


class FilterResult(Wire):
    """ExtenderFilterResult; a node in both maps of refusals counts as unresolvable."""

    nodes: None = None
    node_names: list[str] | None = None
    failed_nodes: dict[str, str] = {}
    failed_and_unresolvable_nodes: dict[str, str] = {}
    error: str = ""


class HostPriority(Wire):
    """The score of one node, 0 to 10."""

    host: str
    score: int


class NoJson(ValueError):
    """The body is not JSON."""


class WrongShape(ValueError):
    """The body is JSON but not ExtenderArgs; the message names the field."""


_Name = Annotated[str, Meta(max_length=LONGEST_NAME)]
_decode: Final = objects.decoder(ExtenderArgs)
_decode_spec: Final = objects.decoder(objects.PodSpec)
_decode_names: Final = msgspec.json.Decoder(Annotated[list[_Name], Meta(max_length=MOST_NODES)] | None).decode
_encode: Final = msgspec.json.Encoder().encode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NOT_SO: Final = (*_UNREADABLE, ArithmeticError, ValueError)


def decode(body: bytes) -> ExtenderArgs:
    """Decode the body of a request; raise NoJson or WrongShape."""
    try:
        args = _decode(body)
    except msgspec.ValidationError as error:
        _check_syntax(body)  # a wrong field may come before the place where the JSON breaks off
        raise WrongShape(_no_args(error)) from error
    except _UNREADABLE as error:
        raise NoJson(f"the body is no JSON: {error}; expected the ExtenderArgs of a kube-scheduler") from error
    if args.nodes != NOTHING:
        raise WrongShape("whole nodes were sent: set nodeCacheCapable: true for this extender, so that names are")
    return args


def _no_args(error: Exception, part: str = "$") -> str:
    """Say what is wrong with a body, of which `part` was decoded."""
    return f"the body is no ExtenderArgs: {error}".replace("`$", f"`{part}")


def _check_syntax(body: bytes) -> None:
    try:
        msgspec.json.decode(body)
    except _UNREADABLE as error:
        raise NoJson(f"the body is no JSON: {error}; expected the ExtenderArgs of a kube-scheduler") from error


def filter_result(passed: list[str], failed: dict[str, str], unresolvable: dict[str, str]) -> bytes:
    """Encode the answer to filter."""
    return _encode(FilterResult(None, passed, failed, unresolvable))


def filter_error(message: str) -> bytes:
    """Encode a filter answer that fails the scheduling cycle; kube-scheduler tries again after its back-off."""
    return _encode(FilterResult(error=message))


def priorities(scores: Iterable[tuple[str, int]]) -> bytes:
    """Encode the answer to prioritize."""
    return _encode([HostPriority(name, score) for name, score in scores])
