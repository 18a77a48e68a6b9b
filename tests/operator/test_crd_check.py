"""Definitions that are missing, older, newer or not served are told apart, by the field."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from muster.api import crd
from muster_operator.crd_check import compare

JOBS, QUEUES = crd.manifests()


def changed(*path: str, value: Any = None) -> dict[str, Any]:
    """The definition of DLJobs without a field of its schema, or with another value there."""
    definition = copy.deepcopy(JOBS)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for step in path[:-1]:
        schema = schema[step]
    if value is None:
        del schema[path[-1]]
    else:
        schema[path[-1]] = value
    return definition


def test_own_definitions_are_complete() -> None:
    assert (compare(JOBS, JOBS), compare(QUEUES, QUEUES)) == ("", "")


def test_missing_or_terminating_definition_is_named() -> None:
    leaving = {**JOBS, "metadata": {**JOBS["metadata"], "deletionTimestamp": "2026-11-21T15:00:00Z"}}
    for found in (None, leaving):
        assert "the definition dljobs.muster.dev is not there: `helm upgrade`" in compare(JOBS, found)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (("properties", "status", "properties", "gpuSeconds"), "lacks .status.gpuSeconds:"),
        (("properties", "status", "properties", "placement", "items", "properties", "gpus"), "lacks .status.placement[].gpus:"),
        (("properties", "spec"), "lacks .spec and "),
    ],
)
def test_older_definition_is_named_with_the_first_missing_field(path: tuple[str, ...], says: str) -> None:
    assert f"older than this operator, it {says}" in compare(JOBS, changed(*path))


def test_newer_definition_is_accepted() -> None:
    assert compare(JOBS, changed("properties", "status", "properties", "news", value={"type": "string"})) == ""


def test_version_that_is_not_served_counts_as_missing() -> None:
    definition = copy.deepcopy(JOBS)
    definition["spec"]["versions"][0]["served"] = False
    assert "older than this operator" in compare(JOBS, definition)
