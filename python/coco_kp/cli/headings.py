"""A command whose help has its options under headings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

KBS: Final = (
    *("--auth-private-key", "--admin-token-file", "--admin-role", "--admin-issuer"),
    *("--admin-audience", "--kbs-ca", "--kbs-insecure-http", "--allow-alias"),
)
PROVIDER_KEYS: Final = (
    *("--kek-from", "--wrap-with", "--allow-kek", "--register-callers-files", "--packet"),
)
KBC: Final = ("--keep-secret", "--attester", "--aa", "--eaa-allow-unverified")
SOURCE: Final = (
    *("--src-creds", "--src-registry-token", "--src-authfile", "--src-cert-dir"),
    "--src-tls-verify",
)
DESTINATION: Final = (
    *("--dest-creds", "--dest-registry-token", "--dest-authfile", "--dest-cert-dir"),
    "--dest-tls-verify",
)
IMAGE: Final = (
    *("--creds", "--registry-token", "--authfile", "--cert-dir", "--tls-verify"),
    *("--retries", "--max-unpacked", "--jobs"),
)
OUTPUT: Final = ("--no-progress", "--quiet", "--verbose")


class HeadedCommand(click.Command):
    """``headings`` has the options by what they are about, each as it is written, in order."""

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 (click's own)
        headings: Mapping[str, tuple[str, ...]],
        **named: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*arguments, **named)
        self.headings = headings

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        records = {
            name: record
            for parameter in self.get_params(ctx)
            if (record := parameter.get_help_record(ctx)) is not None
            for name in parameter.opts
        }
        for heading, names in self.headings.items():
            with formatter.section(heading):
                formatter.write_dl([records[name] for name in names])
