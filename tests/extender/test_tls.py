"""The listener with TLS: who is let in, and what handshakes cost the others."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from builders.streams import KUBE_SCHEDULER, Connect, answered, ended
from muster_extender.certificates import Certificates
from muster_extender.connections import Limits

if TYPE_CHECKING:
    from extender.conftest import Extender, Patches, Serving, World


class Authority:
    """An authority that issues the files of a Secret, and what a client needs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._authority = folder, trustme.CA()
        folder.mkdir(exist_ok=True)
        self._authority.cert_pem.write_to_path(folder / "ca.crt")
        self.renew()

    def renew(self) -> None:
        server = self._authority.issue_cert("127.0.0.1")
        server.private_key_pem.write_to_path(self.folder / "tls.key")
        server.cert_chain_pems[0].write_to_path(self.folder / "tls.crt")

    def client(self, *, certificate: bool = True) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        if certificate:
            self._authority.issue_cert("client.invalid").configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


async def test_client_with_a_certificate_of_the_authority_is_answered(
    world: World, patches: Patches, serve: Serving, connect: Connect, authority: Authority
) -> None:
    world.node("n1")
    world.sync()
    async with serve(world, patches, certificates=Certificates(authority.folder)) as extender:
        stream = await connect(extender, ssl=authority.client())
        assert (await answered(stream, world.pending("job", 8), "n1"))["NodeNames"] == ["n1"]


async def test_clients_without_a_certificate_of_the_authority_are_not(
    world: World, patches: Patches, serve: Serving, connect: Connect, authority: Authority
) -> None:
    stranger = authority.client(certificate=False)
    trustme.CA().issue_cert("client.invalid").configure_cert(stranger)
    async with serve(world, patches, certificates=Certificates(authority.folder)) as extender:
        for context in (authority.client(certificate=False), stranger):
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await answered(await connect(extender, ssl=context), world.pending("job", 8), "n1")
        reader, writer = await connect(extender)
        writer.write(b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        assert b"HTTP/1.1" not in await ended(reader)
        assert extender.closed == ["handshake"] * 3


async def test_handshakes_that_do_not_come_keep_nobody_out(
    world: World, patches: Patches, serve: Serving, connect: Connect, authority: Authority
) -> None:
    world.node("n1")
    world.sync()
    limits = Limits(connections=4, header_seconds=600)
    async with serve(world, patches, limits=limits, certificates=Certificates(authority.folder)) as extender:
        silent = [await connect(extender) for _ in range(10)]
        for reader, _ in silent[:6]:
            assert await ended(reader) == b""
        scheduler = await connect(extender, KUBE_SCHEDULER, ssl=authority.client())
        assert (await answered(scheduler, world.pending("job", 8), "n1"))["NodeNames"] == ["n1"]
        assert set(extender.closed) == {"handshake"}


async def test_handshake_that_does_not_come_ends_the_connection(
    world: World, patches: Patches, serve: Serving, connect: Connect, authority: Authority
) -> None:
    limits = Limits(header_seconds=0.05)
    async with serve(world, patches, limits=limits, certificates=Certificates(authority.folder)) as extender:
        reader, _ = await connect(extender)
        assert await ended(reader) == b""
        assert extender.closed == ["handshake"]


async def test_renewed_certificate_is_taken_and_a_bad_one_is_not(
    world: World, patches: Patches, serve: Serving, connect: Connect, authority: Authority
) -> None:
    async def serial(extender: Extender) -> str:
        _, writer = await connect(extender, ssl=authority.client())
        return str(writer.get_extra_info("peercert")["serialNumber"])

    async with serve(world, patches, certificates=Certificates(authority.folder)) as extender:
        first = await serial(extender)
        authority.renew()
        second = await serial(extender)
        (authority.folder / "tls.crt").write_text("none")
        assert first != second == await serial(extender)
