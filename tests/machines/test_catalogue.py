import re
import tomllib
from importlib.resources import files

import pytest

from muster.machines import UnknownMachine, catalogue, machine
from muster.scheduling.topology.links import matrix

DATA = files("muster.machines") / "data"


def raw_links(file: str, gpus: int) -> list[list[str]]:
    """The GPU columns of the GPU rows, split as plainly as can be."""
    lines = (DATA / file).read_text(encoding="utf-8").replace("SOC", "SYS").splitlines()
    return [line.split()[1 : gpus + 1] for line in lines if re.match(r"GPU\d+\s", line)]


def topo_files() -> dict[str, str]:
    entries = tomllib.loads((files("muster.machines") / "machines.toml").read_text(encoding="utf-8"))
    return {name: entry["topo"] for name, entry in entries.items()}


def test_every_printout_is_a_machine() -> None:
    printouts = {file.name for file in DATA.iterdir() if file.name.endswith(".txt")}
    assert len(printouts) == 17
    assert sorted(topo_files().values()) == sorted(printouts)


@pytest.mark.parametrize("name", catalogue())
def test_links_are_those_of_the_printout(name: str) -> None:
    found = machine(name)
    assert [list(row) for row in found.links] == raw_links(topo_files()[name], found.gpus)
    assert matrix(found.links) == found.links


@pytest.mark.parametrize("name", catalogue())
def test_every_gpu_has_its_row_and_affinities(name: str) -> None:
    found = machine(name)
    assert found.gpus == len(found.links) == len(found.cpu_affinity) == len(found.numa)
    assert all(len(links) == found.gpus for links in found.nics.values())
    last_cpu = max((int(n) for text in found.cpu_affinity if text for n in re.findall(r"\d+", text)), default=0)
    assert last_cpu < found.cpus
    assert found.gpu_memory_gib < found.memory_gib


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
def test_known_machines(name: str, gpus: int, memory: int, link: str, numa: int | None) -> None:
    found = machine(name)
    assert (found.gpus, found.gpu_memory_gib, found.links[0][1], found.numa[0]) == (gpus, memory, link, numa)


@pytest.mark.parametrize("name", ["dgx-a100", "dgx-2"])
def test_completed_machines_are_uniform_and_claim_no_more(name: str) -> None:
    found = machine(name)
    assert len({cell for row in found.links for cell in row}) == 2
    assert found.nics == {}
    assert set(found.cpu_affinity[4:]) == {None}


def test_affinities_are_read() -> None:
    assert machine("c4140").cpu_affinity == ("0,2,4,6,8,10",) * 4
    assert machine("p100").cpu_affinity == ("1",) * 8
    assert machine("gh200").numa == (0, 1, 2, 3)
    assert machine("v100").nics == {"mlx5_0": ("NODE", "NODE", "PIX", "PIX", "SYS", "SYS", "SYS", "SYS")}


def test_an_alias_is_the_machine() -> None:
    assert machine("hgx-h100") is machine("dgx-h100")
    assert machine("dgx1-p100").name == "p100"
    assert "hgx-h100" not in catalogue()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownMachine, match=r"'dgx-9' is no machine type; known are dgx-a100, .*gh200, .*hgx-h100"):
        machine("dgx-9")
