"""Generated files in the repository match the models."""

from collections.abc import Callable
from pathlib import Path

import pytest

from muster.api import crd, names, reference
from muster.api.dljob import DLJob

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("write", "folder", "pattern", "command"),
    [
        (crd.main, "crds", "*.yaml", "muster.api.crd crds"),
        (reference.main, "docs/reference", "*.md", "muster.api.reference docs/reference"),
    ],
)
def test_generated_files_are_up_to_date(
    write: Callable[[str], None], folder: str, pattern: str, command: str, tmp_path: Path
) -> None:
    write(str(tmp_path))
    generated = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in (ROOT / folder).glob(pattern) if path.name in generated}
    assert committed == generated, f"run `python -m {command}`"
    assert len(generated) > 1


def test_reference_page_has_every_name() -> None:
    page = reference.annotations()
    values = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str) and "/" in value}
    missing = {value for value in values - {names.API_VERSION} if f"`{value}`" not in page}
    assert not missing


def test_models_and_names_have_the_same_version() -> None:
    assert DLJob.model_fields["api_version"].default == names.API_VERSION
