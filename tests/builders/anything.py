"""JSON of any shape, and valid objects with something of any shape in them: what a stranger may send."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

_ODD: list[Any] = [
    *("", " ", "NaN", "-1", "1e999999999", "9" * 400, "٣", "NV" + "9" * 400, "9999-12-31T23:59:59-23:59", "\x00", "true"),
    *(0, -1, 1 << 31, 1 << 63, 10**400, -(10**400), 0.5, 1e308, True, False, None),
    *([], {}, [[]], [None], {"": None}, "x" * 5000, ["x"] * 500),
]
_leaves = st.one_of(
    st.sampled_from(_ODD), st.text(max_size=20), st.integers(), st.floats(allow_nan=False, allow_infinity=False)
)
anything: st.SearchStrategy[Any] = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3), max_leaves=6
)
"""Any JSON."""


@st.composite
def damaged(draw: st.DrawFn, body: Any, keep: tuple[tuple[Any, ...], ...] = (("metadata", "name"),)) -> Any:
    """The object with one to three of its parts replaced by anything; the paths in `keep` stay."""
    body = copy.deepcopy(body)
    for _ in range(draw(st.integers(1, 3))):
        paths = [path for path in _paths(body) if not any(kept[: len(path)] == path for kept in keep)]
        *parents, last = draw(st.sampled_from(paths))
        part = body
        for step in parents:
            part = part[step]
        part[last] = copy.deepcopy(draw(anything))  # the next one may damage it
    return body


def _paths(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*path, key))
