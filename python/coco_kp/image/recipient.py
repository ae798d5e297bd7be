"""Who can open an encrypted layer: recipients, each with a packet of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from coco_kp.crypto import SAMPLE_KEK, Kek
from coco_kp.errors import InputError, KekError
from coco_kp.files import write_file
from coco_kp.image.opener import KekOpener
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.layer_encryption import DEFAULT_SCHEME, PROVIDER_SCHEME, LayerPacket
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.packet import PacketVersion, read_packet
from coco_kp.model.resource_uri import ResourceUri, parse_key_id
from coco_kp.provider import SAMPLE_KID, wrap_options

if TYPE_CHECKING:
    from coco_kp.keys.registrar import Registrar


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

    def confirms(self, packet: LayerPacket, options: PrivateOptions) -> bool:
        """Tell whether a packet that was just made of ``options`` holds them, by opening it."""


@runtime_checkable
class NewRecipient(Protocol):
    """A recipient whose key is yet to be made: only once it is certain that it will be used."""

    @property
    def name(self) -> str:
        """Its kid, empty where that is yet to be made, too."""

    def make(self) -> Recipient:
        """Make the key and keep it safe, then give the recipient. Raises ``CocoKpError``."""


@dataclass(frozen=True, slots=True)
class PacketForm:
    """How packets are written; ``scheme`` is ``provider.<name>`` of who opens them.

    None is the provider whose packets the layer has already, ``attestation-agent`` for a new one.
    """

    algorithm: Algorithm = Algorithm.A256GCM
    version: PacketVersion = "v1"
    scheme: str | None = None


@dataclass(frozen=True, slots=True)
class KekRecipient:
    """The holder of a KEK, found by its guests under ``kid``."""

    kid: ResourceUri
    kek: Kek
    form: PacketForm = PacketForm()

    @property
    def name(self) -> str:
        """Its kid."""
        return str(self.kid)

    def wrap(self, options: PrivateOptions) -> LayerPacket:
        """Make the packet of a layer."""
        packet = wrap_options(self.kek, self.kid, self.form.algorithm, options.to_json())
        return LayerPacket(self._scheme, packet.to_json(self.form.version))

    def beside(self, packets: Iterable[LayerPacket]) -> KekRecipient:
        """Return the recipient whose packets a guest finds in a layer that has these.

        Guests look at the first key provider by name alone: a packet of another would not be seen,
        or would hide the others (tests/recordings/guest.json, "keys annotation").
        """
        schemes = (p.scheme for p in packets if p.scheme.startswith(PROVIDER_SCHEME))
        scheme = self.form.scheme or min(schemes, default=DEFAULT_SCHEME)
        return replace(self, form=replace(self.form, scheme=scheme))

    @property
    def _scheme(self) -> str:
        return self.form.scheme or DEFAULT_SCHEME

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Open a packet with the KEK. Raises ``KekError`` or ``InputError``."""
        return KekOpener(self.kek, self.name).open(packet)

    def confirms(self, packet: LayerPacket, options: PrivateOptions) -> bool:
        """Open the packet with the KEK."""
        return self.open(packet) == options

    def wrote(self, packet: LayerPacket) -> bool:
        """Tell whether a packet is of the same form, and for the same key."""
        try:
            read = read_packet(packet.data)
            self.open(packet)
        except (InputError, KekError):
            return False
        if read.wrapped_key is None:
            return False
        form = PacketForm(read.wrapped_key.wrap_type, read.version, packet.scheme)
        return (read.kid, form) == (self.name, replace(self.form, scheme=self._scheme))


@dataclass(frozen=True, slots=True)
class GeneratedKek:
    """A recipient whose KEK will be drawn and kept in a new file, for its owner only."""

    kid: ResourceUri
    file: Path
    form: PacketForm = PacketForm()

    @property
    def name(self) -> str:
        """Its kid."""
        return str(self.kid)

    def make(self) -> KekRecipient:
        """Draw the KEK and put it on the disk. Raises ``RefusedError`` if the file exists."""
        kek = Kek.generate()
        write_file(self.file, kek.raw(), replace=False)
        return KekRecipient(self.kid, kek, self.form)


@dataclass(frozen=True, slots=True)
class Registered:
    """A recipient whose KEK will be registered with a KBS, so that guests can fetch it there."""

    recipient: KekRecipient | GeneratedKek
    registrar: Registrar

    @property
    def name(self) -> str:
        """Its kid."""
        return self.recipient.name

    def make(self) -> KekRecipient:
        """Register the KEK. Raises ``RemoteError`` unless the KBS confirmed."""
        made = self.recipient
        if isinstance(made, GeneratedKek):
            made = made.make()
        self.registrar.register(made.kid, made.kek)
        return made


@dataclass(frozen=True, slots=True)
class RegisteredKek:
    """A recipient whose KEK the registrar makes, or has made before; a fresh kid where None."""

    kid: ResourceUri | None
    registrar: Registrar
    form: PacketForm = PacketForm()

    @property
    def name(self) -> str:
        """Its kid, empty where the registrar makes that, too."""
        return str(self.kid or "")

    def make(self) -> KekRecipient:
        """Have the KEK made and registered. Raises ``RemoteError`` unless the KBS confirmed."""
        if self.kid is None:
            return KekRecipient(*self.registrar.new_kek(), self.form)
        return KekRecipient(self.kid, self.registrar.kek_for(self.kid), self.form)


def has_name(packet: LayerPacket, name: str) -> bool:
    """Return whether the packet has this key ID, or another tool wrote it under this scheme."""
    if packet.scheme == name:
        return True
    try:
        found = read_packet(packet.data).kid
        return found == name or parse_key_id(found) == parse_key_id(name)
    except InputError:
        return False


def sample_recipient(form: PacketForm | None = None) -> KekRecipient:
    """Give the recipient of trials, whose KEK everybody knows; ``sample`` guests open A256GCM."""
    return KekRecipient(SAMPLE_KID, Kek(SAMPLE_KEK), form or PacketForm())
