"""JSON as deep as the API server takes it is read, so that one object stands in nobody's way."""

from __future__ import annotations

import msgspec
import pytest

from muster.kube.depth import LEVELS


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("levels", [1_100, LEVELS - 100])
def test_process_with_a_client_reads_what_the_api_server_takes(levels: int) -> None:
    text = b'{"a":' * levels + b"1" + b"}" * levels
    assert bytes(msgspec.json.decode(text, type=msgspec.Raw)) == text
    msgspec.json.decode(text)
