"""Dockerfile and assembled images agree with each other, with the chart, and with the example."""

from __future__ import annotations

import re

import yaml

from muster_dev.kind import assembled, images
from muster_dev.kind.images import PROJECT

DOCKERFILE = (PROJECT / "Dockerfile").read_text()


def test_dockerfile_has_the_targets_extras_and_commands_of_the_assembled_images() -> None:
    for name, target in assembled.TARGETS.items():
        final = re.search(rf"^FROM base AS {name}\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
        assert final
        assert f'ENTRYPOINT ["{target.command}"]' in final[1]
        built = re.search(rf"^FROM build AS build-{name}\n(.*?)(?=^FROM)", DOCKERFILE, re.MULTILINE | re.DOTALL)
        assert built
        assert set(re.findall(r"--extra (\S+)", built[1])) == ({target.extra} if target.extra else set())


def test_sources_of_the_images_are_not_ignored_by_docker() -> None:
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    assert {f"!{source}" for source in assembled.SOURCES} == {line for line in ignored if line.startswith("!")}
    assert all((PROJECT / source).exists() for source in assembled.SOURCES)


def test_chart_and_example_name_images_that_are_made() -> None:
    values = yaml.safe_load((PROJECT / "helm/muster/values.yaml").read_text())
    version = yaml.safe_load((PROJECT / "helm/muster/Chart.yaml").read_text())["appVersion"]
    made = images.names()
    assert {f"{values['image']['repository']}-{part}:{version}" for part in ("operator", "extender", "agent")} <= set(made)
    job = yaml.safe_load((PROJECT / "examples/allreduce.yaml").read_text())
    (container,) = job["spec"]["roles"]["worker"]["template"]["spec"]["containers"]
    assert container["image"] in made
