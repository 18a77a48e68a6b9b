"""Scenario files: their meaning, and the error for each mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest
from pydantic import BaseModel

from muster.scheduling.gang import Sharing
from muster.simulator import scenario as scenarios
from muster.simulator.assembly import assemble, jobs_of
from muster.simulator.plugin_fields import Builder, settings_model
from muster.simulator.registry import PHYSICS, POLICIES, SOURCES
from muster.simulator.scenario import Scenario
from muster.simulator.traces.listed import Listed
from muster.simulator.yaml_errors import BadInput

GOOD = """\
    cluster:
      groups:
      - {count: 2, machine: dgx-a100}
    jobs:
      source: list
      jobs:
      - {name: a, work: 10, gpus: 8}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "scenario.yaml"
    path.write_text(dedent(text))
    return path


def load(folder: Path, text: str) -> Scenario:
    return scenarios.load(written(folder, text))


@pytest.mark.parametrize(
    ("original", "replacement", "line", "field", "words"),
    [
        ("count: 2", "count: two", 3, "cluster.groups[0].count", "found 'two'; expected a valid integer"),
        ("count: 2", "count: 0", 3, "cluster.groups[0].count", "greater than or equal to 1"),
        ("count: 2, ", "", 3, "cluster.groups[0].count", "is missing"),
        ("machine: dgx-a100", "machine: dgx-9", 3, "cluster.groups[0].machine", "'dgx-9' is no machine type"),
        ("machine: dgx-a100", "gpus: 2, links: NV", 3, "cluster.groups[0].links", "'NV' is no GPU link"),
        ("machine: dgx-a100", "gpus: 2, links: [[X]]", 3, "cluster.groups[0].links", "a matrix of 1 GPU; expected 2"),
        ("machine: dgx-a100", "machine: p100, gpus: 2", 3, "cluster.groups[0]", "both or neither of machine and gpus"),
        (
            "- {count: 2,",
            "- {count: 1, machine: p100}\n      - {count: 2, name: p100,",
            2,
            "cluster.groups",
            "nodes called p100",
        ),
        ("source: list", "source: lists", 5, "jobs.source", "found 'lists'; expected one of list, "),
        ("work: 10", "work: -1", 7, "jobs.jobs[0].work", "found -1; expected greater than 0"),
        ("work: 10", "wrk: 10", 7, "jobs.jobs[0].wrk", "there is no such field; expected one of name, "),
        ("source: list", "source: list\n      wait: 3", 6, "jobs.wait", "there is no such field; expected one of jobs"),
        ("cluster:", "policy: best\n    cluster:", 1, "policy.name", "found 'best'; expected one of muster"),
        ("cluster:", "policy: {name: muster, slice_seconds: -1}\n    cluster:", 1, "policy.slice_seconds", "equal to 0"),
        ("cluster:", "policy: {name: muster, policy: gandiva}\n    cluster:", 1, "policy.policy", "there is no such field"),
        ("cluster:", "policy: {name: muster, preemtion: no}\n    cluster:", 1, "policy.preemtion", "there is no such field"),
        ("cluster:", "window: [9, 3]\n    cluster:", 1, "window", "ends before it begins"),
        ("cluster:", "failures: [{at: 1, node: x}]\n    cluster:", 1, "failures", "is of node 'x'; expected one of dgx-a100-0"),
        ("cluster:", "until: .inf\n    cluster:", 1, "until", "found inf; expected a finite number"),
        ("jobs:", "jobs: ]", 4, "", "is not YAML"),
    ],
)
def test_mistake_is_reported_with_its_line_and_field(
    tmp_path: Path, original: str, replacement: str, line: int, field: str, words: str
) -> None:
    assert original in GOOD
    with pytest.raises(BadInput) as caught:
        load(tmp_path, GOOD.replace(original, replacement, 1))
    problem = caught.value.problems[0]
    assert (problem.line, problem.field) == (line, field)
    assert words in problem.message
    assert str(caught.value).startswith(str(tmp_path / "scenario.yaml"))


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        load(tmp_path, GOOD.replace("count: 2", "count: 0").replace("work: 10", "work: 0"))
    assert [problem.line for problem in caught.value.problems] == [3, 7]
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("text", ["", "[1, 2]", "just words"])
def test_file_without_a_scenario_is_rejected(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match="found"):
        load(tmp_path, text)


def test_missing_or_binary_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        scenarios.load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot be read"):
        scenarios.load(tmp_path / "binary.yaml")


def test_nodes_have_racks_and_blocks_and_each_group_starts_a_rack(tmp_path: Path) -> None:
    groups = "groups: [{count: 3, gpus: 4, links: NV2, model: V100}, {count: 2, name: b, gpus: 1}]"
    text = GOOD.replace(
        "groups:\n      - {count: 2, machine: dgx-a100}", f"{groups}\n      nodes_per_rack: 2\n      racks_per_block: 2"
    )
    nodes = load(tmp_path, text).cluster.nodes()
    assert [(node.name, node.rack, node.block) for node in nodes] == [
        ("node-0", "rack-0000", "block-0000"),
        ("node-1", "rack-0000", "block-0000"),
        ("node-2", "rack-0001", "block-0000"),
        ("b-0", "rack-0002", "block-0001"),
        ("b-1", "rack-0002", "block-0001"),
    ]
    assert {node.model for node in nodes[:3]} == {"V100"}
    assert nodes[0].machine.ring(0b1111) == 40.0
    assert nodes[0].free == nodes[0].healthy == 0b1111


def test_named_machine_type_sets_links_and_model(tmp_path: Path) -> None:
    node = load(tmp_path, GOOD).cluster.nodes()[0]
    assert (node.name, node.machine.gpus, node.model) == ("dgx-a100-0", 8, "NVIDIA A100-SXM4-40GB")
    assert node.rack == node.block == ""


def test_pod_gpus_and_sharing_of_the_scenario_apply_to_jobs(tmp_path: Path) -> None:
    plain = load(tmp_path, GOOD)
    assert jobs_of(plain, tmp_path)[0].tasks == (8,)
    cut = load(tmp_path, GOOD + "    pod_gpus: 3\n    sharing: {slices: true}\n")
    job = jobs_of(cut, tmp_path)[0]
    assert job.tasks == (3, 3, 2)
    assert job.sharing == Sharing(slices=True, packs=False)


def test_duplicate_job_name_is_rejected(tmp_path: Path) -> None:
    text = GOOD + "      - {name: a, work: 1}\n"
    with pytest.raises(BadInput, match="two jobs are called a"):
        assemble(load(tmp_path, text), tmp_path)


@pytest.mark.parametrize("name", sorted(set(PHYSICS) - {"ideal"}))
def test_job_without_a_rate_is_reported_before_the_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=f"physics {name} has no rate for job a of kind 'unheard-of' on GPUs 'NVIDIA A100"):
        assemble(load(tmp_path, GOOD.replace("work: 10", "work: 10, kind: unheard-of") + f"    physics: {name}\n"), tmp_path)


def test_trace_path_is_relative_to_the_scenario(tmp_path: Path) -> None:
    text = GOOD.split("    jobs:")[0] + "    jobs: {source: tiresias, path: traces/t.csv}\n"
    scenario = load(tmp_path, text)
    with pytest.raises(BadInput, match=str(tmp_path / "traces" / "t.csv")):
        assemble(scenario, tmp_path)
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "t.csv").write_text("job_id,num_gpu,submit_time,duration,model_name\n7,2,3,40,vgg\n")
    (job,) = jobs_of(scenario, tmp_path)
    assert (job.name, job.arrival, job.tasks, job.work, job.kind) == ("job-007", 3.0, (1, 1), 40.0, "vgg")


def test_gpus_fail_and_recover_as_scheduled(tmp_path: Path) -> None:
    failing = "    failures: [{at: 4, node: dgx-a100-0, gpus: [0, 1], until: 6}, {at: 4, node: dgx-a100-1}]\n"
    simulation = assemble(load(tmp_path, GOOD + failing), tmp_path)
    healthy_gpus: dict[float, tuple[int, int]] = {}
    for time in (3.0, 5.0, 7.0):
        simulation.at(time, lambda time=time: bool(healthy_gpus.update({time: tuple(n.healthy.bit_count() for n in nodes())})))  # type: ignore[misc]

    def nodes() -> list:  # type: ignore[type-arg]
        return [simulation.cluster.nodes[name] for name in ("dgx-a100-0", "dgx-a100-1")]

    row = simulation.run().rows["a"]
    assert healthy_gpus == {3.0: (8, 8), 5.0: (6, 0), 7.0: (8, 0)}
    assert row.finished is not None
    assert row.finished > 10.0, "the failure interrupted it"


@pytest.mark.parametrize(("table", "name"), [(t, name) for t in (SOURCES, PHYSICS, POLICIES) for name in t])
def test_registry_entry_has_a_strict_settings_model(table: Mapping[str, Builder], name: str) -> None:
    assert settings_model(table[name]).model_config["extra"] == "forbid"


@pytest.mark.parametrize("name", POLICIES)
def test_policy_runs_by_name(tmp_path: Path, name: str) -> None:
    text = GOOD.replace("machine: dgx-a100", "gpus: 1").replace("gpus: 8}", "gpus: 1}")
    row = assemble(load(tmp_path, text + f"    policy: {name}\n"), tmp_path).run().rows["a"]
    assert row.started is not None
    assert row.finished == row.started + 10.0


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"fair-rounds"}))  # which runs one-GPU jobs only
def test_job_that_never_fits_does_not_prolong_a_run(tmp_path: Path, name: str) -> None:
    text = GOOD.replace("machine: dgx-a100", "gpus: 1").replace("gpus: 8}", "gpus: 1, arrival: 5000}")
    text = text.replace("{name: a,", "{name: large, work: 10, gpus: 9}\n      - {name: a,")
    rows = assemble(load(tmp_path, text + f"    policy: {name}\n"), tmp_path).run().rows
    assert rows["large"].started is None


def test_run_ends_with_its_last_job(tmp_path: Path) -> None:
    later = "    failures: [{at: 5000, node: dgx-a100-0, until: 9000}]\n"
    assert assemble(load(tmp_path, GOOD + later), tmp_path).run().end == 10.0
    assert assemble(load(tmp_path, GOOD + later + "    until: 7\n"), tmp_path).run().end == 7.0


def test_settings_reach_the_builder(tmp_path: Path) -> None:
    text = (GOOD + "      - {name: b, work: 2, gpus: 8, arrival: 1}\n").replace("count: 2", "count: 1") + "    policy: srtf\n"
    free = assemble(load(tmp_path, text), tmp_path).run()
    costly = assemble(load(tmp_path, text + "    physics: {name: ideal, resume_seconds: 5}\n"), tmp_path).run()
    assert (free.rows["a"].finished, costly.rows["a"].finished) == (12.0, 17.0)


@pytest.mark.parametrize("model", [Scenario, scenarios.Cluster, scenarios.Group, scenarios.Failure, scenarios.Sharing, Listed])
def test_field_is_documented(model: type[BaseModel]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    assert [name for name in model.model_fields if f"`{name}`" not in text] == []


@pytest.mark.parametrize(("part", "table"), [("jobs", SOURCES), ("physics", PHYSICS), ("policy", POLICIES)])
def test_registry_names_and_settings_are_documented(part: str, table: Mapping[str, Builder]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    section = text.split(f"\n### {part}\n")[1].split("\n#")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("|")]
    for name, builder in table.items():
        documented = [settings for _, names, settings, *_ in rows if f"`{name}`" in names]
        assert documented, f"{name} has no row"
        assert [field for field in settings_model(builder).model_fields if f"`{field}`" not in documented[0]] == []
