"""Requests and answers of a scheduler extender: extender/v1/types.go of Kubernetes as msgspec Structs.

The Go types carry no JSON tags, so their keys are the Go field names; the objects inside keep the API's camelCase. A
scheduler with `nodeCacheCapable: true` sends names (160 kB for 5,000 nodes) and accepts only names that it sent. One without
it would send whole nodes (44 MB), which are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from muster.allocation.pods import gpus_of
from muster.kube.objects import Pod

NOTHING: Final = msgspec.Raw(b"null")
MOST_NODES: Final = 20_000
"""Nodes in one request: four times what Kubernetes supports in a cluster."""
LONGEST_NAME: Final = 253
"""Characters of a node's name: the API server's own limit."""


class Wire(msgspec.Struct, rename="pascal", gc=False):
    """Base: Go field names on the wire."""


class ExtenderArgs(Wire):
    """The body of filter and prioritize; `nodes` stays as it is, since a scheduler is to send names."""

    pod: Pod
    nodes: msgspec.Raw = NOTHING
    node_names: Annotated[list[Annotated[str, Meta(max_length=LONGEST_NAME)]], Meta(max_length=MOST_NODES)] | None = None

    def names(self) -> list[str]:
        """Return the names of the nodes in question, in the order they came."""
        return self.node_names or []


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


_decode: Final = msgspec.json.Decoder(ExtenderArgs).decode
_encode: Final = msgspec.json.Encoder().encode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode(body: bytes) -> ExtenderArgs:
    """Decode the body of a request; raise NoJson or WrongShape."""
    try:
        args = _decode(body)
        gpus_of(args.pod)  # raises for an amount that is none
    except (msgspec.ValidationError, ArithmeticError) as error:
        _check_syntax(body)  # a wrong field may come before the place where the JSON breaks off
        raise WrongShape(f"the body is no ExtenderArgs: {error}") from error
    except _UNREADABLE as error:
        raise NoJson(f"the body is no JSON: {error}; expected the ExtenderArgs of a kube-scheduler") from error
    except ValueError as error:  # an amount that is no quantity
        raise WrongShape(f"the body is no ExtenderArgs: {error}") from error
    if args.nodes != NOTHING:
        raise WrongShape("whole nodes were sent: set nodeCacheCapable: true for this extender, so that names are")
    return args


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
