import re
import tomllib
from importlib.resources import files

import pytest

from muster.machines import UnknownMachine, catalogue, machine
from muster.scheduling.topology.links import matrix

DATA = files("muster.machines") / "data"


def raw_links(file: str, gpus: int) -> list[list[str]]:
    """The GPU columns of the GPU rows, by a minimal parser."""
    lines = (DATA / file).read_text(encoding="utf-8").replace("SOC", "SYS").splitlines()
    return [line.split()[1 : gpus + 1] for line in lines if re.match(r"GPU\d+\s", line)]


def topo_files() -> dict[str, str]:
    entries = tomllib.loads((files("muster.machines") / "machines.toml").read_text(encoding="utf-8"))
    return {name: entry["topo"] for name, entry in entries.items()}


def test_every_recorded_table_belongs_to_a_machine() -> None:
    printouts = {file.name for file in DATA.iterdir() if file.name.endswith(".txt")}
    assert len(printouts) == 17
    assert sorted(topo_files().values()) == sorted(printouts)


@pytest.mark.parametrize("name", catalogue())
def test_links_equal_the_recorded_table(name: str) -> None:
    kind = machine(name)
    assert [list(row) for row in kind.links] == raw_links(topo_files()[name], kind.gpus)
    assert matrix(kind.links) == kind.links


@pytest.mark.parametrize("name", catalogue())
def test_every_gpu_has_links_and_affinities(name: str) -> None:
    kind = machine(name)
    assert kind.gpus == len(kind.links) == len(kind.cpu_affinity) == len(kind.numa)
    assert all(len(links) == kind.gpus for links in kind.nics.values())
    last_cpu = max((int(n) for text in kind.cpu_affinity if text for n in re.findall(r"\d+", text)), default=0)
    assert last_cpu < kind.cpus
    assert kind.gpu_memory_gib < kind.memory_gib


@pytest.mark.parametrize(
    ("name", "gpus", "memory", "link", "numa"),
    [
        ("dgx-a100", 8, 40, "NV12", 3),
        ("dgx-h100", 8, 80, "NV18", 0),
        ("dgx-2", 16, 32, "NV6", None),
        ("p100", 8, 16, "NV1", None),
        ("pcie-8", 8, 24, "PIX", 0),
        ("c4140", 4, 16, "NV2", 0),
        ("gh200", 4, 96, "NV6", 0),
    ],
)
def test_properties_of_named_machines(name: str, gpus: int, memory: int, link: str, numa: int | None) -> None:
    kind = machine(name)
    assert (kind.gpus, kind.gpu_memory_gib, kind.links[0][1], kind.numa[0]) == (gpus, memory, link, numa)


@pytest.mark.parametrize("name", ["dgx-a100", "dgx-2"])
def test_completed_tables_are_uniform_without_nics_or_affinities(name: str) -> None:
    kind = machine(name)
    assert len({cell for row in kind.links for cell in row}) == 2
    assert kind.nics == {}
    assert set(kind.cpu_affinity[4:]) == {None}


def test_affinities_and_nics_are_parsed() -> None:
    assert machine("c4140").cpu_affinity == ("0,2,4,6,8,10",) * 4
    assert machine("p100").cpu_affinity == ("1",) * 8
    assert machine("gh200").numa == (0, 1, 2, 3)
    assert machine("v100").nics == {"mlx5_0": ("NODE", "NODE", "PIX", "PIX", "SYS", "SYS", "SYS", "SYS")}


def test_alias_returns_the_same_machine() -> None:
    assert machine("hgx-h100") is machine("dgx-h100")
    assert machine("dgx1-p100").name == "p100"
    assert "hgx-h100" not in catalogue()


def test_unknown_name_is_rejected_with_the_valid_names() -> None:
    with pytest.raises(
        UnknownMachine, match=r"'dgx-9' is no machine type; expected one of a100-4, .*dgx-a100, .*gh200, .*hgx-h100"
    ):
        machine("dgx-9")
