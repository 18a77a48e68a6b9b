"""Amounts in a pod template over which the API server would calculate for minutes: apimachinery writes their zeros out.

A user may ask the API server for such a pod, and be the one who waits. The operator asks for many users, so it does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

_HOLD_AMOUNTS: Final = frozenset({"limits", "requests", "overhead", "sizeLimit", "divisor"})
"""The fields of a pod that are quantities, or have some."""
_ENDLESS: Final = re.compile(r"[^eE]*[eE][+-]?0*[1-9][0-9]{3,}")
_MOST_QUOTED: Final = 40


def endless(template: object) -> str:
    """Return what is wrong with the first amount whose exponent has four digits or more, with its path; "" for none."""
    for path, amount in _amounts(template):
        if _ENDLESS.fullmatch(amount):
            return (
                f"{path}: {amount[:_MOST_QUOTED]!r} has more zeros than any amount; expected a number with a suffix such as Gi"
            )
    return ""


def _amounts(template: object) -> Iterator[tuple[str, str]]:
    """The texts in fields that hold amounts, with their paths; without recursion, since JSON may be nested deep."""
    left: list[tuple[str, Any, bool]] = [("template", template, False)]
    while left:
        path, value, holds = left.pop()
        if isinstance(value, dict):
            left += [(f"{path}.{key}", child, holds or key in _HOLD_AMOUNTS) for key, child in reversed(value.items())]
        elif isinstance(value, list):
            left += [(f"{path}[{index}]", value[index], holds) for index in reversed(range(len(value)))]
        elif holds and isinstance(value, str):
            yield path, value
