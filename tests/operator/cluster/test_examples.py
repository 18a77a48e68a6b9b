"""Every manifest of examples/ can be applied as it is, in an empty namespace, and its job starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from builders.live import Live

pytestmark = pytest.mark.cluster

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_applied_as_it_is_starts(live: Live, file: Path) -> None:
    live.cluster.kubectl("apply", "-f", str(file), "-n", live.namespace)
    for manifest in yaml.safe_load_all(file.read_text()):
        if manifest["kind"] == "DLJob":
            expected = "Suspended" if manifest["spec"].get("suspend") else "Running"
            status = live.wait_phase(manifest["metadata"]["name"], "Running", "Suspended", "Failed")
            assert status["phase"] == expected
            assert len(status.get("placement", [])) == (sum(_replicas(manifest)) if expected == "Running" else 0)


def _replicas(manifest: dict[str, dict[str, dict[str, dict[str, int]]]]) -> list[int]:
    return [role.get("replicas", 1) for role in manifest["spec"]["roles"].values()]
