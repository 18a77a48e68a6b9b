import pytest

from muster.machines.ranges import BadRanges, canonical_ranges, format_ranges, parse_ranges


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0-3,8", [0, 1, 2, 3, 8]),
        ("5", [5]),
        ("1-1", [1]),
        ("0,2,4", [0, 2, 4]),
        ("8, 0-1", [0, 1, 8]),
        ("0-2,1-3", [0, 1, 2, 3]),
    ],
)
def test_parse_ranges_returns_sorted_unique_numbers(text: str, numbers: list[int]) -> None:
    assert parse_ranges(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-1", "1,,2", "1-2-3", "٣"])
def test_invalid_text_is_rejected(text: str) -> None:
    with pytest.raises(BadRanges, match="expected the form 0-3,8"):
        parse_ranges(text)


@pytest.mark.parametrize(("numbers", "text"), [([], ""), ([8, 0, 1, 2], "0-2,8"), ([0, 2, 4], "0,2,4"), ([0, 1, 1], "0-1")])
def test_format_ranges_returns_the_shortest_text(numbers: list[int], text: str) -> None:
    assert format_ranges(numbers) == text


def test_canonical_ranges_has_one_text_per_set() -> None:
    assert canonical_ranges("1-1") == "1"
    assert canonical_ranges("2,0-1") == "0-2"
