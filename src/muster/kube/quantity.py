"""Kubernetes quantities ("500m", "64Gi", "1e3") as whole numbers; docs: apimachinery's resource.Quantity."""

import re
from decimal import Decimal, InvalidOperation
from functools import lru_cache

_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


@lru_cache(maxsize=4096)
def parse(text: str | int) -> Decimal:
    """Return the amount that a quantity names; raise ValueError for any other text."""
    text = str(text)
    if re.search(r"[eE][+-]?\d{3}", text):
        raise ValueError(f"{text!r} is no quantity: its exponent has three digits or more")
    try:
        if text[-2:] in _BINARY:
            return Decimal(text[:-2]) * (1 << _BINARY[text[-2:]])
        if text[-1:] in _DECIMAL:
            return Decimal(text[:-1]).scaleb(_DECIMAL[text[-1]])
        return Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is no quantity; expected a number with a suffix such as m, k, Mi or Gi") from error


@lru_cache(maxsize=4096)
def whole(text: str | int) -> int:
    """Return a quantity as a whole number, rounded up."""
    return _up(parse(text))


@lru_cache(maxsize=4096)
def milli(text: str | int) -> int:
    """Return thousandths of a quantity ("0.5" of a CPU is 500), rounded up."""
    return _up(parse(text) * 1000)


def _up(amount: Decimal) -> int:
    return -int((-amount).to_integral_value(rounding="ROUND_FLOOR"))
