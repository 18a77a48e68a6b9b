"""What nodes said when they refused a gang's pods: in one sentence, the words of most nodes first."""

from __future__ import annotations

from collections import defaultdict

from muster.scheduling.counting import counted
from muster.scheduling.gang import Gang

MOST_WORDS = 3
"""Different words that one sentence repeats."""


def refusals(gang: Gang) -> str:
    """Return "; 3 nodes refused it: 2 with Insufficient x (n1, ...)", to follow a sentence; empty if no node did."""
    if not gang.refused:
        return ""
    nodes: dict[str, list[str]] = defaultdict(list)
    for node, words in sorted(gang.refused.items()):
        nodes[words].append(node)
    most = sorted(nodes.items(), key=lambda item: (-len(item[1]), item[1]))
    said = [f"{len(by)} ({by[0]}{', ...' if len(by) > 1 else ''}) with: {words}" for words, by in most[:MOST_WORDS]]
    more = [f"{len(most) - MOST_WORDS} other answers"] if len(most) > MOST_WORDS else []
    return f"; {counted(len(gang.refused), 'node')} refused it: {'; '.join([*said, *more])}"
