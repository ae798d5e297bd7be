"""Who can open an encrypted layer: recipients, each with a packet of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from coco_kp.crypto import SAMPLE_KEK, Kek
from coco_kp.errors import InputError, KekError
from coco_kp.files import write_file
from coco_kp.image.opener import KekOpener
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.layer_encryption import DEFAULT_SCHEME, LayerPacket
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.packet import PacketVersion, read_packet
from coco_kp.model.resource_uri import ResourceUri
from coco_kp.provider import SAMPLE_KID, wrap_options


class Recipient(Protocol):
    """Wraps layers' keys so that one KBS, or one holder of a KEK, can open them."""

    @property
    def name(self) -> str:
        """What a user knows it by: its kid, if it has one."""

    def wrap(self, options: PrivateOptions) -> LayerPacket:
        """Make the packet of a layer. Raises ``CocoKpError``."""

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Open a packet that it made. Raises ``CocoKpError``."""

    def wrote(self, packet: LayerPacket) -> bool:
        """Tell whether ``wrap`` would make such a packet, and ``open`` opens it."""


@runtime_checkable
class NewRecipient(Protocol):
    """A recipient whose key is yet to be made: only once it is certain that it will be used."""

    def make(self) -> Recipient:
        """Make the key and keep it safe, then give the recipient. Raises ``CocoKpError``."""


@dataclass(frozen=True, slots=True)
class KekRecipient:
    """The holder of a KEK, found by its guests under ``kid``."""

    kid: ResourceUri
    kek: Kek
    algorithm: Algorithm = Algorithm.A256GCM
    packet_version: PacketVersion = "v1"
    scheme: str = DEFAULT_SCHEME

    @property
    def name(self) -> str:
        """Its kid."""
        return str(self.kid)

    def wrap(self, options: PrivateOptions) -> LayerPacket:
        """Make the packet of a layer."""
        packet = wrap_options(self.kek, self.kid, self.algorithm, options.to_json())
        return LayerPacket(self.scheme, packet.to_json(self.packet_version))

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Open a packet with the KEK. Raises ``KekError`` or ``InputError``."""
        return KekOpener(self.kek, self.name).open(packet)

    def wrote(self, packet: LayerPacket) -> bool:
        """Tell whether a packet is of the same form, and for the same key."""
        try:
            form = read_packet(packet.data)
            self.open(packet)
        except (InputError, KekError):
            return False
        return (packet.scheme, form.version, form.kid) == (
            self.scheme,
            self.packet_version,
            self.name,
        ) and (form.wrapped_key is not None and form.wrapped_key.wrap_type is self.algorithm)


@dataclass(frozen=True, slots=True)
class GeneratedKek:
    """A recipient whose KEK will be drawn and kept in a new file, for its owner only."""

    kid: ResourceUri
    file: Path
    algorithm: Algorithm = Algorithm.A256GCM
    packet_version: PacketVersion = "v1"
    scheme: str = DEFAULT_SCHEME

    def make(self) -> KekRecipient:
        """Draw the KEK and put it on the disk. Raises ``RefusedError`` if the file exists."""
        kek = Kek.generate()
        write_file(self.file, kek.raw(), replace=False)
        return KekRecipient(self.kid, kek, self.algorithm, self.packet_version, self.scheme)


def sample_recipient(
    packet_version: PacketVersion = "v1", scheme: str = DEFAULT_SCHEME
) -> KekRecipient:
    """Give the recipient of trials, whose KEK everybody knows."""
    return KekRecipient(SAMPLE_KID, Kek(SAMPLE_KEK), Algorithm.A256GCM, packet_version, scheme)
