"""Quantities: as Kubernetes reads them, and nothing that costs more than a look."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.kube.quantity import MOST, BadQuantity, milli, parse, whole


@pytest.mark.parametrize(
    ("text", "amount"),
    [("500m", "0.5"), ("64Gi", 64 << 30), ("1e3", 1000), ("1E3", 1000), ("+2", 2), (".5", "0.5"), ("5.", 5), (7, 7), ("0", 0)],
)
def test_quantity_is_read_as_kubernetes_reads_it(text: str | int, amount: str | int) -> None:
    assert parse(text) == Decimal(amount)


@pytest.mark.parametrize("text", ["1e999999999", "9" * 60, 10**4000, "99999Ei", "1e20"])
def test_amount_beyond_what_kubernetes_counts_is_capped(text: str | int) -> None:
    assert (whole(text), milli(text)) == (MOST, MOST)


@pytest.mark.parametrize("text", ["1n", "1e-999999999", "0.0000001"])
def test_amount_below_a_thousandth_is_rounded_up(text: str) -> None:
    assert (whole(text), milli(text)) == (1, 1)


@pytest.mark.parametrize(
    "text",
    ["", "lots", "-1", -1, -(10**4000), "NaN", "Infinity", "1_000", " 1", "٣", "1e", "1e99999999999", "9" * 65, "0x1", "1KiB"],
)
def test_text_that_is_no_amount_is_refused(text: str | int) -> None:
    for read in (parse, whole, milli):
        with pytest.raises(BadQuantity, match="is no quantity"):
            read(text)


@given(st.one_of(st.text(), st.integers(), st.from_regex(r"\A[+-]?[0-9.]*[eE]?[+-]?[0-9]*[A-Za-z]{0,2}\Z")))
def test_any_text_is_an_amount_within_bounds_or_refused(text: str | int) -> None:
    for read in (whole, milli):
        with suppress(BadQuantity):
            assert 0 <= read(text) <= MOST
