"""TLS settings of a client."""

from __future__ import annotations

import ssl
from pathlib import Path

from coco_kp.errors import InputError
from coco_kp.http.failure import why
from coco_kp.values import dataclass


@dataclass(frozen=True, slots=True)
class Tls:
    """Whom to trust and who we are.

    ``ca_files`` (PEM) are trusted beside the system's roots. ``client_certificate`` (PEM, leaf
    first) is shown to a server that asks; its key is in ``client_key`` or in the same file.
    ``verify=False`` accepts any server: say it only where the user said it.
    """

    ca_files: tuple[Path, ...] = ()
    client_certificate: Path | None = None
    client_key: Path | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """Build the TLS settings; raises :class:`InputError` for a file that cannot be used."""
        if self.verify:
            context = ssl.create_default_context()
        else:  # without the system's roots, which take 26 ms to read
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        for file in self.ca_files:
            try:
                context.load_verify_locations(cafile=file)
            except (OSError, ssl.SSLError) as exc:
                raise InputError(f"cannot read CA certificates from '{file}': {why(exc)}") from exc
        if self.client_certificate is not None:
            try:
                # An encrypted key would make OpenSSL ask on the terminal: answer with nothing.
                context.load_cert_chain(self.client_certificate, self.client_key, password=bytes)
            except (OSError, ssl.SSLError) as exc:
                name = self.client_certificate
                raise InputError(f"cannot use client certificate '{name}': {why(exc)}") from exc
        return context
