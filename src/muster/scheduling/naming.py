"""How gangs are named in a sentence: by name to a reader of their namespace, to others as gangs of another namespace.

A namespace is whose jobs a user may read; who else computes what, and that it waits, is not told.
"""

from __future__ import annotations

from collections.abc import Sequence

from muster.scheduling.gang import Gang

FOREIGN = "a gang of another namespace"


def named(gang: Gang, reader: str) -> str:
    """Return what a reader of the namespace `reader` is told instead of, or as, the name of a gang."""
    return gang.name if gang.namespace == reader else FOREIGN


def all_named(gangs: Sequence[Gang], reader: str) -> str:
    """Return the same of several: "a, b and 2 gangs of other namespaces"."""
    own = [gang.name for gang in gangs if gang.namespace == reader]
    others = len(gangs) - len(own)
    rest = FOREIGN if others == 1 else f"{others} gangs of other namespaces"
    if not others:
        return ", ".join(own)
    return f"{', '.join(own)} and {rest}" if own else rest
