"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Literal

import click

from coco_kp.cli.output import verbosity
from coco_kp.provider import Provider

FILE = click.Path(path_type=Path)
"""A file's path; whether it is there and what is in it, the use case says."""


def provider_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a key provider, and the provider that they describe."""

    @verbosity
    @click.option(
        "--kbc",
        metavar="NAME[::URI]",
        help="Open packets with this KBC where the caller names none: sample or offline_fs.",
    )
    @click.option(
        "--keys",
        type=FILE,
        metavar="FILE",
        help="Keys file of offline_fs, instead of /etc/aa-offline_fs_kbc-keys.json.",
    )
    @click.option(
        "--key-dir",
        type=FILE,
        metavar="DIR",
        help="Let 'keypath' name only files under DIR; a relative one starts there.",
    )
    @click.option(
        "--packet",
        type=click.Choice(["v1", "v2"]),
        default="v1",
        show_default=True,
        help="Annotation packet to write; every guest reads v1.",
    )
    @wraps(command)
    def with_provider(
        kbc: str | None,
        keys: Path | None,
        key_dir: Path | None,
        packet: Literal["v1", "v2"],
        **options: object,
    ) -> None:
        from coco_kp.errors import UsageError, shown
        from coco_kp.kbc import KbcSettings, open_kbc
        from coco_kp.model.kbc_spec import parse_kbc_spec

        if key_dir is not None and not key_dir.is_dir():
            raise UsageError(f"--key-dir {shown(str(key_dir))} is no folder")
        settings = KbcSettings(keys_file=keys.absolute() if keys else None)
        spec = parse_kbc_spec(kbc) if kbc else None
        if spec:
            open_kbc(spec, settings)
        provider = Provider(
            key_dir=key_dir.absolute() if key_dir else None,
            packet_version=packet,
            kbc=spec,
            kbc_settings=settings,
        )
        command(provider, **options)

    return with_provider
