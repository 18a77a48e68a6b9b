"""`muster snapshot` and its replay, compared with what the operator does with the same cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders.live import Json, Live
from muster.cli import main

pytestmark = pytest.mark.cluster


def taken(live: Live, tmp_path: Path) -> Path:
    file = tmp_path / "cluster.json"
    assert main(["snapshot", "--kubeconfig", str(live.cluster.kubeconfig), "-o", str(file)]) == 0
    return file


def replayed(live: Live, file: Path, tmp_path: Path, *options: str) -> tuple[dict[str, Json], Json]:
    """What the replay decides about the gangs of the namespace, and all that it says."""
    result = tmp_path / "result.json"
    assert main(["simulate", "--snapshot", str(file), "--json", "-o", str(result), *options]) == 0
    said = json.loads(result.read_text())
    prefix = f"{live.namespace}/"
    return {d["gang"].removeprefix(prefix): d for d in said["decisions"] if d["gang"].startswith(prefix)}, said


def test_replay_of_a_snapshot_agrees_with_the_operator(live: Live, tmp_path: Path) -> None:
    live.add_nodes(1)
    secret = {"name": "TOKEN", "value": "not-for-others"}
    container = {"name": "train", "image": "x", "env": [secret], "resources": {"limits": {"nvidia.com/gpu": 8}}}
    template = {"spec": {"containers": [container], "nodeSelector": {"test/pool": live.namespace}}}
    roles = {"worker": {"replicas": 1, "template": template}}
    live.create("dljobs", {"metadata": {"name": "first"}, "spec": {"roles": roles, "priority": 3}})
    live.wait_running("first", 1)
    live.job("second", 1, 6, pool=live.namespace, priority=2)
    messages = {"second": live.wait_reason("second", "InsufficientGPUs")}
    live.job("third", 2, 1, pool=live.namespace, priority=1)
    messages["third"] = live.wait_reason("third", "BehindInQueue")
    live.pod("bare", 1, nodeSelector={"test/pool": live.namespace})
    live.wait(lambda: live.told("bare", "comes after"), "the bare pod is told why it waits")

    file = taken(live, tmp_path)
    assert "not-for-others" not in file.read_text()
    decisions, _ = replayed(live, file, tmp_path)
    assert {name: (d["decision"], d["message"]) for name, d in decisions.items() if name in messages} == {
        name: ("Wait", message) for name, message in messages.items()
    }
    assert decisions["pod:bare"]["reason"] == "BehindInQueue"
    assert "first" not in decisions, "what runs and wants nothing gets no decision"

    _, said = replayed(live, file, tmp_path, "--assume-duration", "3600", "--jobs")
    rows = {row["name"].removeprefix(f"{live.namespace}/"): row for row in said["run"]["rows"]}
    assert rows["first"]["started"] == 0.0
    assert rows["first"]["finished"] == rows["second"]["started"] == rows["third"]["started"]
    assert 0.0 < rows["first"]["finished"] < 3600.0, "it has run for a while already"

    # Take the first job out of the file: the replay places the others as the operator will when it has gone.
    dump = json.loads(file.read_text())
    for kind in ("dljobs", "pods"):
        dump[kind] = [item for item in dump[kind] if not item["metadata"]["name"].startswith("first")]
    file.write_text(json.dumps(dump))
    foreseen, _ = replayed(live, file, tmp_path)
    live.delete("dljobs", "first", propagation="Background")
    for name in messages:
        live.wait_phase(name, "Running")
        where = [(place["pod"], place["node"], place["gpus"]) for place in live.status(name)["placement"]]
        assert where == [(place["pod"], place["node"], place["gpus"]) for place in foreseen[name]["placement"]]
