import re

import pytest

from muster.machines import BadTopo, Topo, parse_topo, render_topo

TWO = """\
\tGPU0\tGPU1\tmlx5_0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tNV2\tPIX\t0-3,8-11\t0\t\tN/A
GPU1\tNV2\t X \tSOC\t4-7\t1\t\tN/A
mlx5_0\tPIX\tSOC\t X

Legend:

  X    = Self
"""
EXPECTED = Topo(
    links=(("X", "NV2"), ("NV2", "X")),
    nics={"mlx5_0": ("PIX", "SYS")},
    cpu_affinity=("0-3,8-11", "4-7"),
    numa=("0", "1"),
)


def test_parse_topo_reads_tabs() -> None:
    assert parse_topo(TWO) == EXPECTED


def test_parse_topo_reads_blanks() -> None:
    assert parse_topo(TWO.replace("\t", "      ")) == EXPECTED


def test_parse_topo_ignores_terminal_escapes() -> None:
    header, rest = TWO.split("\n", 1)
    assert parse_topo(f"\x1b[4m{header}\x1b[0m\n{rest}") == EXPECTED


def test_parse_topo_accepts_a_table_without_nics_affinities_and_legend() -> None:
    text = "# a comment\n\n GPU0 GPU1\nGPU0 X SYS\nGPU1 SYS X\n"
    assert parse_topo(text) == Topo((("X", "SYS"), ("SYS", "X")), {}, (None, None), (None, None))


def test_parse_topo_accepts_missing_affinity_cells() -> None:
    topo = parse_topo(" GPU0 GPU1 CPU Affinity\nGPU0 X SYS 0-3\nGPU1 SYS X\n")
    assert topo.cpu_affinity == ("0-3", None)
    assert topo.numa == (None, None)


def test_not_available_is_none() -> None:
    assert parse_topo(" GPU0 CPU Affinity NUMA Affinity\nGPU0 X N/A N/A\n") == Topo((("X",),), {}, (None,), (None,))


def test_render_topo_is_read_back() -> None:
    text = render_topo(EXPECTED)
    assert text.splitlines()[0] == "\tGPU0\tGPU1\tmlx5_0\tCPU Affinity\tNUMA Affinity"
    assert text.splitlines()[1] == "GPU0\t X \tNV2\tPIX\t0-3,8-11\t0"
    assert parse_topo(text) == EXPECTED
    bare = Topo((("X",),), {}, (None,), (None,))
    assert parse_topo(render_topo(bare)) == bare


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("PIX\t0", "PAX\t0", "line 2, row GPU0, column mlx5_0: 'PAX' is no GPU link"),
        ("GPU1\tNV2", "GPU1\tNV3", "line 2, row GPU0, column GPU1: found NV2, but row GPU1, column GPU0 has NV3"),
        ("GPU0\t X ", "GPU0\tSYS", "line 2, row GPU0, column GPU0: found SYS; expected X exactly where"),
        ("GPU1\tNV2", "GPU1\tX", "line 3, row GPU1, column GPU0: found X; expected X exactly where"),
        ("GPU1\tNV2\t X \tSOC\t4-7\t1\t\tN/A\n", "", "row GPU1 is missing; the header in line 1 names 2 GPUs"),
        ("GPU1\tNV2\t X \tSOC\t4-7\t1\t\tN/A", "GPU1\tNV2", "line 3: row GPU1 has 1 cells; expected 3 links"),
        ("4-7\t1\t\tN/A", "4-7\t1\tN/A\tmore", "line 3: row GPU1 has 7 cells; expected 3 links and at most 3"),
        ("mlx5_0\tPIX\tSOC\t X", "mlx5_9\tPIX\tSOC\t X", "line 4: row mlx5_9 has no column of that name"),
        ("\tGPU1\tmlx5_0\tCPU", "\tGPU1\tGPU1\tCPU", "line 1: the header names a device twice"),
        ("mlx5_0\tPIX\tSOC\t X", "GPU1\tNV2\t X \tSYS", "line 4: duplicate row GPU1"),
    ],
)
def test_error_names_line_cell_and_expectation(old: str, new: str, message: str) -> None:
    assert old in TWO
    with pytest.raises(BadTopo, match=re.escape(message)):
        parse_topo(TWO.replace(old, new, 1))


@pytest.mark.parametrize("text", ["", "\n# only a comment\n", "Legend:\n X = Self\n"])
def test_text_without_a_table_is_rejected(text: str) -> None:
    with pytest.raises(BadTopo, match="expected the output of nvidia-smi topo -m"):
        parse_topo(text)


def test_text_without_a_header_is_rejected() -> None:
    with pytest.raises(BadTopo, match="line 2: no header; expected columns GPU0"):
        parse_topo("\nNo devices were found\n")
