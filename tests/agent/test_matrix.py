"""The rules for NV<n> in the link matrix."""

from __future__ import annotations

from muster_agent.matrix import ANCESTORS, GpuLinks, link_matrix
from muster_agent.nvml import NvLink, Remote

A, B, C, SWITCH = "0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "0000:f0:00.0"


def ports(address: str, *remotes: tuple[Remote, str | None]) -> GpuLinks:
    return GpuLinks(address, [NvLink(kind, where) for kind, where in remotes])


def matrix(*gpus: GpuLinks, reaches: bool | None = True) -> list[list[str]]:
    return link_matrix(gpus, lambda _i, _j: reaches, lambda i, j: f"pcie{i}{j}")


def cell(a: GpuLinks, b: GpuLinks, reaches: bool | None = True) -> str:
    links = matrix(a, b, reaches=reaches)
    assert links[0][1] == links[1][0]
    assert [links[0][0], links[1][1]] == ["X", "X"]
    return links[0][1]


def test_direct_links_are_counted_by_peer() -> None:
    links = matrix(
        ports(A, (Remote.GPU, B), (Remote.GPU, B), (Remote.GPU, C)),
        ports(B, (Remote.GPU, A), (Remote.GPU, A)),
        ports(C, (Remote.GPU, A)),
    )
    assert links == [["X", "NV2", "NV1"], ["NV2", "X", "pcie12"], ["NV1", "pcie12", "X"]]


def test_direct_links_count_without_access_status() -> None:
    a, b = ports(A, (Remote.GPU, B)), ports(B, (Remote.GPU, A))
    assert cell(a, b, reaches=False) == "NV1"
    assert cell(ports(A, (Remote.UNKNOWN, B)), ports(B, (Remote.UNKNOWN, A)), reaches=None) == "NV1"


def test_smaller_count_of_both_ends_is_used() -> None:
    a, b = ports(A, (Remote.GPU, B), (Remote.GPU, B)), ports(B, (Remote.GPU, A))
    assert cell(a, b) == cell(b, a) == "NV1"


def test_count_of_one_end_is_used_if_the_other_is_unknown() -> None:
    a = ports(A, (Remote.GPU, B), (Remote.GPU, B))
    assert cell(a, GpuLinks(B, None)) == cell(GpuLinks(B, None), a) == "NV2"
    assert cell(a, ports(B, (Remote.GPU, None))) == "NV2"
    assert cell(GpuLinks(A, None), GpuLinks(B, None)) == "pcie01"
    assert cell(GpuLinks(None, a.nvlinks), GpuLinks(B, None)) == "NV2"


def test_switch_links_count_if_the_pair_has_access() -> None:
    a, b = (ports(where, *[(Remote.SWITCH, SWITCH)] * 18) for where in (A, B))
    assert cell(a, b) == "NV18"
    assert cell(a, b, reaches=False) == "pcie01"
    assert cell(a, b, reaches=None) == "pcie01"


def test_switch_links_require_both_ends() -> None:
    a, b = ports(A, *[(Remote.SWITCH, SWITCH)] * 6), ports(B)
    assert cell(a, b) == cell(b, a) == "pcie01"
    fewer = ports(B, *[(Remote.SWITCH, SWITCH)] * 4)
    assert cell(a, fewer) == cell(fewer, a) == "NV4"


def test_direct_links_take_precedence_over_switches() -> None:
    a = ports(A, (Remote.GPU, B), (Remote.SWITCH, SWITCH), (Remote.SWITCH, SWITCH))
    b = ports(B, (Remote.GPU, A), (Remote.SWITCH, SWITCH), (Remote.SWITCH, SWITCH))
    assert cell(a, b) == "NV1"


def test_links_to_the_cpu_do_not_count() -> None:
    a, b = ports(A, (Remote.NPU, "0004:00:00.0")), ports(B, (Remote.NPU, "0004:00:00.0"))
    assert cell(a, b) == "pcie01"


def test_matrix_without_gpus_is_empty() -> None:
    assert matrix() == []


def test_link_names_of_common_ancestors() -> None:
    assert ANCESTORS == {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
