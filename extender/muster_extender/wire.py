"""Requests and answers of a scheduler extender: extender/v1/types.go of Kubernetes as msgspec Structs.

The Go types carry no JSON tags, so their keys are the Go field names; the objects inside keep the API's camelCase. A
scheduler with `nodeCacheCapable: true` sends names (160 kB for 5,000 nodes), another one whole nodes (44 MB): of those only
the names are decoded. It accepts only nodes that it sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from muster.allocation.pods import gpus_of
from muster.kube.objects import Pod


class Wire(msgspec.Struct, rename="pascal", gc=False):
    """Base: Go field names on the wire."""


class Named(msgspec.Struct, gc=False):
    """The metadata of a node, of which only the name is read."""

    name: str


class WireNode(msgspec.Struct, gc=False):
    """A node inside a NodeList."""

    metadata: Named


class NodeList(msgspec.Struct, gc=False):
    """A v1.NodeList; Go writes an empty one as null items."""

    items: list[WireNode] | None = None


class ExtenderArgs(Wire):
    """The body of filter and prioritize."""

    pod: Pod
    nodes: NodeList | None = None
    node_names: list[str] | None = None

    def names(self) -> list[str]:
        """Return the names of the nodes in question, in the order they came."""
        if self.node_names is not None:
            return self.node_names
        return [node.metadata.name for node in (self.nodes.items if self.nodes else None) or ()]


class FilterResult(Wire):
    """ExtenderFilterResult; a node in both maps of refusals counts as unresolvable."""

    nodes: NodeList | None = None
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


_decode: Final = msgspec.json.Decoder(ExtenderArgs).decode
_encode: Final = msgspec.json.Encoder().encode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode(body: bytes) -> ExtenderArgs:
    """Decode the body of a request; raise NoJson or WrongShape."""
    try:
        args = _decode(body)
        gpus_of(args.pod)  # raises for an amount that is none
        return args
    except (msgspec.ValidationError, ArithmeticError) as error:
        _check_syntax(body)  # a wrong field may come before the place where the JSON breaks off
        raise WrongShape(f"the body is no ExtenderArgs: {error}") from error
    except _UNREADABLE as error:
        raise NoJson(f"the body is no JSON: {error}; expected the ExtenderArgs of a kube-scheduler") from error
    except ValueError as error:  # an amount that is no quantity
        raise WrongShape(f"the body is no ExtenderArgs: {error}") from error


def _check_syntax(body: bytes) -> None:
    try:
        msgspec.json.decode(body)
    except _UNREADABLE as error:
        raise NoJson(f"the body is no JSON: {error}; expected the ExtenderArgs of a kube-scheduler") from error


def filter_result(args: ExtenderArgs, passed: list[str], failed: dict[str, str], unresolvable: dict[str, str]) -> bytes:
    """Encode the answer to filter in the form (names or nodes) of the question."""
    if args.node_names is not None:
        return _encode(FilterResult(None, passed, failed, unresolvable))
    nodes = NodeList([WireNode(Named(name)) for name in passed])  # kube-scheduler looks at the names only
    return _encode(FilterResult(nodes, None, failed, unresolvable))


def filter_error(message: str) -> bytes:
    """Encode a filter answer that fails the scheduling cycle; kube-scheduler tries again after its back-off."""
    return _encode(FilterResult(error=message))


def priorities(scores: Iterable[tuple[str, int]]) -> bytes:
    """Encode the answer to prioritize."""
    return _encode([HostPriority(name, score) for name, score in scores])
