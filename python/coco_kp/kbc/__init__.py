"""KBCs: who gets a layer's key out of its packet. Each is loaded only when it is named."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from coco_kp.errors import RefusedError
from coco_kp.model.kbc_spec import KbcSpec
from coco_kp.model.packet import AnnotationPacket


@dataclass(frozen=True, slots=True)
class KbcSettings:
    """What the owner of this machine set for KBCs; a caller of the provider cannot change it.

    ``keys_file`` replaces the default files of ``offline_fs``.
    """

    keys_file: Path | None = None


class Kbc(Protocol):
    """Opens packets. Made anew for each call, since each call may name another address."""

    def unwrap(self, packet: AnnotationPacket) -> bytes:
        """Give the private options that the packet holds. Raises ``CocoKpError``."""


def open_kbc(spec: KbcSpec, settings: KbcSettings) -> Kbc:
    """Make the KBC that ``spec`` names. Raises ``RefusedError`` for one that is not built yet."""
    if spec.name not in _MODULES:
        raise RefusedError(
            f"KBC '{spec.name}' is not built yet", f"use one of {', '.join(_MODULES)}"
        )
    module = import_module(f"coco_kp.kbc.{spec.name}")
    return cast("Kbc", module.open_kbc(spec, settings))


_MODULES = ("sample", "offline_fs")
