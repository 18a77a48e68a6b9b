"""The certificates of the Service's listener: its own, and the authority of the clients that it takes.

They are the files of a mounted Secret (tls.crt, tls.key, ca.crt), which the kubelet replaces when the Secret is renewed: the
next handshake takes the new ones. A client without a certificate of the authority gets no further than the handshake.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Final

log: Final = logging.getLogger(__name__)


class BadCertificates(Exception):
    """The files are not there, or are no certificates and key; the message names the folder."""


class Certificates:
    """A TLS context that follows its files."""

    def __init__(self, folder: Path) -> None:
        """Read the files in `folder`; raise BadCertificates."""
        self._files = [folder / name for name in ("tls.crt", "tls.key", "ca.crt")]
        try:
            self._context, self._read = self._load(), self._stamps()
        except OSError as error:  # ssl.SSLError is one
            raise BadCertificates(f"cannot use tls.crt, tls.key and ca.crt in {folder}: {error}") from error

    def context(self) -> ssl.SSLContext:
        """Return the context for the next handshake: of the files as they are now, or of the last that were good."""
        try:
            if (now := self._stamps()) != self._read:
                self._read = now
                self._context = self._load()
                log.info("the certificates have been renewed")
        except OSError as error:
            log.warning("cannot use the new certificates, keeping the old ones: %s", error)
        return self._context

    def _load(self) -> ssl.SSLContext:
        certificate, key, authority = self._files
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
        context.load_cert_chain(certificate, key)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _stamps(self) -> list[tuple[int, int]]:
        return [(status.st_mtime_ns, status.st_ino) for status in map(Path.stat, self._files)]
