"""Kubernetes quantities ("500m", "64Gi", "1e3") as whole numbers; docs: apimachinery's resource.Quantity.

Amounts that Kubernetes would cap at 2^63-1 are capped here too. What it would reject, and negative amounts, which no pod and no
node may have, raise BadQuantity.
"""

import re
from decimal import Decimal
from functools import lru_cache
from typing import Final

MOST: Final = (1 << 63) - 1
"""The largest amount, as in apimachinery."""
MOST_CHARACTERS: Final = 64
"""The longest text: the API server writes 25 at most, and reading takes the square of it."""
_FORM: Final = re.compile(
    r"\+?(?P<number>[0-9]+\.?[0-9]*|\.[0-9]+)(?P<suffix>[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,10})?", re.ASCII
)
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_LARGEST_EXPONENT: Final = MOST_CHARACTERS + 20
"""Beyond it, either way, an amount of so few digits is capped, or rounded up to the smallest one."""


class BadQuantity(ValueError):
    """A text that is no quantity of anything."""


@lru_cache(maxsize=4096)
def parse(text: str | int) -> Decimal:
    """Return the amount that a quantity names; raise BadQuantity for any other text."""
    words = str(max(-1, min(text, MOST))) if isinstance(text, int) else text
    form = _FORM.fullmatch(words) if len(words) <= MOST_CHARACTERS else None
    if form is None:
        raise BadQuantity(f"{words[:40]!r} is no quantity; expected a number with a suffix such as m, k, Mi or Gi")
    number, suffix = Decimal(form["number"]), form["suffix"] or ""
    if suffix in _BINARY:
        return min(number * (1 << _BINARY[suffix]), Decimal(MOST))
    exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:] or 0)
    bounded = max(-_LARGEST_EXPONENT, min(exponent, _LARGEST_EXPONENT))
    return min(number.scaleb(bounded), Decimal(MOST))


@lru_cache(maxsize=4096)
def whole(text: str | int) -> int:
    """Return a quantity as a whole number, rounded up."""
    return _up(parse(text))


@lru_cache(maxsize=4096)
def milli(text: str | int) -> int:
    """Return thousandths of a quantity ("0.5" of a CPU is 500), rounded up."""
    return min(_up(parse(text) * 1000), MOST)


def _up(amount: Decimal) -> int:
    return -int((-amount).to_integral_value(rounding="ROUND_FLOOR"))
