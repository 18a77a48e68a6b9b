"""Numbers and times in annotations: any text is something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.api import texts


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("007", 7), ("", None), (None, None), ("-1", None), ("٣", None), ("²", None), ("1e3", None), ("1234567", None)],
)
def test_number_has_ascii_digits_and_few(text: str | None, number: int | None) -> None:
    assert texts.number(text, 6) == number


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T01:00:10+01:00", 10.0),
        ("1970-01-01T00:00:10.123456789Z", 10.123456),
        ("1970-01-01T00:00:10", 10.0),
        ("2999-12-31T23:59:59Z", 32503679999.0),
        ("9999-12-31T23:59:59-23:59", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_time_is_within_the_years_that_clocks_show(text: str | None, time: float | None) -> None:
    assert texts.time(text) == time


@given(st.one_of(st.text(), st.from_regex(r"\A[0-9]{4}-[0-9T:.+Z-]{0,36}\Z")))
def test_any_text_is_a_number_or_a_time_or_none(text: str) -> None:
    number, time = texts.number(text, 9), texts.time(text)
    assert number is None or 0 <= number < 10**9
    assert time is None or -1e12 < time < 1e12
