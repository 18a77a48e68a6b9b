"""Protobuf encoding of the messages that a minimal plugin needs from the kubelet's device plugin API v1beta1.

Field numbers are those of k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1/api.proto. All fields in use are strings or messages,
which share one encoding: key, length, bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

_LENGTH_DELIMITED: Final = 2


def registration(endpoint: str, resource: str) -> bytes:
    """Return a RegisterRequest with the plugin's socket in the kubelet's directory and its resource."""
    return _field(1, b"v1beta1") + _field(2, endpoint.encode()) + _field(3, resource.encode())


def devices(ids: Sequence[str]) -> bytes:
    """Return a ListAndWatchResponse of healthy devices."""
    return b"".join(_field(1, _field(1, device.encode()) + _field(2, b"Healthy")) for device in ids)


def requested(request: bytes) -> list[list[str]]:
    """Return the device IDs for each container of an AllocateRequest; raise ValueError for an invalid message."""
    return [[device.decode() for device in _fields(container, 1)] for container in _fields(request, 1)]


def allocated(containers: Sequence[Sequence[str]]) -> bytes:
    """Return an AllocateResponse that sets NVIDIA_VISIBLE_DEVICES for each container, as NVIDIA's plugin does."""
    variables = (_field(1, b"NVIDIA_VISIBLE_DEVICES") + _field(2, ",".join(ids).encode()) for ids in containers)
    return b"".join(_field(1, _field(1, variable)) for variable in variables)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    octets = []
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])


def _fields(message: bytes, number: int) -> Iterator[bytes]:
    """Yield the contents of the fields with this number."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        if key & 7 != _LENGTH_DELIMITED:
            raise ValueError(f"found wire type {key & 7}; expected only strings and messages")
        length, at = _read_varint(message, at)
        if at + length > len(message):
            raise ValueError("the message ends within a field")
        if key >> 3 == number:
            yield message[at : at + length]
        at += length


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        octet = message[at]
        value |= (octet & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if octet < 0x80:
            return value, at
    raise ValueError("the message ends within a number")
