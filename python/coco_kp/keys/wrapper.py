"""Key wrappers: who wraps a layer's private options to a packet, and opens packets again.

A *recipient* is a key that a user named; it becomes a key wrapper by ``prepare``, which only reads
and draws, and what it made is kept and registered by ``publish``, once all else is known to work.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol, Self

from coco_kp.crypto import SAMPLE_KEK, Kek
from coco_kp.errors import CocoKpError, InputError, KekError
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.layer_encryption import DEFAULT_SCHEME, PROVIDER_SCHEME, LayerPacket
from coco_kp.model.layer_options import PrivateOptions, parse_private_options
from coco_kp.model.packet import (
    AnnotationPacket,
    PacketVersion,
    UncheckedPacket,
    parse_packet,
    read_packet,
)
from coco_kp.model.resource_uri import ResourceUri, parse_key_id, without_ciphertext
from coco_kp.model.words import check_word
from coco_kp.redact import shown
from coco_kp.values import dataclass, field, replace

SAMPLE_KID: Final = ResourceUri("resource", "", ("default", "test-key", "1"))
"""The kid that upstream writes for its sample key."""

SAMPLE_WARNING: Final = (
    "everybody can open the image: the sample key is public, and for trials only"
)
CTR_WARNING: Final = "A256CTR does not detect tampering: verify refuses such packets unless asked"


class Opener(Protocol):
    """Gets layers' keys out of packets."""

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Open a packet. Raises ``CocoKpError`` if it cannot."""


class KeyOpener(Opener, Protocol):
    """Opens packets with a key that is fetched or asked where it is kept."""

    def close(self) -> None:
        """Close its connections; a later use opens new ones."""


class Recipient(Protocol):
    """A key that a user named, and that nobody has touched yet."""

    @property
    def name(self) -> str:
        """What a user knows it by: its key ID if it has one, empty where that is yet to be made."""

    def prepare(self) -> KeyWrapper:
        """Return what wraps for it: the key is fetched or drawn, and nothing is written.

        Raises ``CocoKpError``.
        """


class KeyWrapper(Recipient, Opener, Protocol):
    """Wraps layers' keys so that one KBS, or one holder of a key, can open them."""

    def wrap(self, private_options: bytes) -> LayerPacket:
        """Return the packet of a layer's private options (JSON, complete), byte for byte.

        Raises ``CocoKpError``.
        """

    def beside(self, packets: Iterable[LayerPacket]) -> KeyWrapper:
        """Return the one whose packets a guest finds in a layer that has these."""

    def wrote(self, packet: LayerPacket) -> bool:
        """Return whether ``wrap`` would make such a packet, and ``open`` opens it."""

    def confirms(self, packet: LayerPacket, options: PrivateOptions) -> bool:
        """Return whether a packet that was just made of ``options`` holds them, by opening it."""

    @property
    def kept(self) -> tuple[str, ...]:
        """The places where a new key is kept now."""

    def publish(self) -> None:
        """Keep a key that was made, and register it with a KBS where that was asked for.

        A second call does nothing. Raises ``CocoKpError``; the message says where a new key is.
        """


class _PacketForm(NamedTuple):
    algorithm: Algorithm
    version: PacketVersion
    scheme: str | None


class PacketForm(_PacketForm):
    """How packets are written.

    Attributes:
        algorithm: What wraps the layer's key.
        version: Upstream's form of the packet, ``"v1"`` or ``"v2"``.
        scheme: ``provider.<name>`` of who opens them. None takes the provider whose packets the
            layer has already, and ``attestation-agent`` for a layer without.

    Raises:
        ValueError: The version is unknown.
        TypeError: The algorithm is not an ``Algorithm``.
    """

    __slots__ = ()

    def __new__(
        cls,
        algorithm: Algorithm = Algorithm.A256GCM,
        version: PacketVersion = "v1",
        scheme: str | None = None,
    ) -> Self:
        """Check the words; to make a dataclass takes a millisecond at every start."""
        check_word("version", version, PacketVersion)
        if not isinstance(algorithm, Algorithm):
            raise TypeError(f"algorithm={algorithm!r} is not an Algorithm")
        return super().__new__(cls, algorithm, version, scheme)

    def beside(self, packets: Iterable[LayerPacket]) -> PacketForm:
        """Return the form whose packets a guest finds in a layer that has these.

        Guests look at the first key provider by name alone: a packet of another would not be seen,
        or would hide the others (tests/recordings/guest.json, "keys annotation").
        """
        schemes = (p.scheme for p in packets if p.scheme.startswith(PROVIDER_SCHEME))
        return self._replace(scheme=self.scheme or min(schemes, default=DEFAULT_SCHEME))

    def layer_packet(self, packet: bytes) -> LayerPacket:
        """Return a packet's JSON under the provider's scheme."""
        return LayerPacket(self.scheme or DEFAULT_SCHEME, packet)


@dataclass(frozen=True, slots=True)
class KekOpener:
    """A KEK at hand: it opens its packets whatever their key ID says, even one no guest can read.

    Attributes:
        kek: The key.
        name: What messages call it.
    """

    kek: Kek
    name: str = "the key"

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Open a packet with the KEK. Raises ``KekError`` or ``InputError``."""
        check_scheme(packet)
        key = read_packet(packet.data).wrapped_key
        if key is None:
            parse_packet(packet.data)  # says that no KBS holds the key
            raise KekError("the packet holds no wrapped key")
        try:
            opened = self.kek.unwrap(key.wrap_type, key.iv, key.wrapped_data)
        except KekError as error:
            raise KekError(f"{self.name} does not open the packet", error.hint) from None
        return check_opened(opened, self.name, key.wrap_type)


@dataclass(frozen=True, slots=True)
class KekRecipient:
    """The holder of a KEK. Whoever made the KEK keeps it.

    Attributes:
        kid: The key ID by which guests find the KEK.
        kek: The key.
        form: How packets are written.
    """

    kid: ResourceUri
    kek: Kek
    form: PacketForm = field(default_factory=PacketForm)

    @property
    def name(self) -> str:
        """The key ID, as text."""
        return str(self.kid)

    def prepare(self) -> KekRecipient:
        """Return itself."""
        return self

    def wrap(self, private_options: bytes) -> LayerPacket:
        """Return the packet of a layer's private options."""
        packet = wrap_options(self.kek, self.kid, self.form.algorithm, private_options)
        return self.form.layer_packet(packet.to_json(self.form.version))

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Open a packet with the KEK. Raises ``KekError`` or ``InputError``."""
        return KekOpener(self.kek, self.name).open(packet)

    def beside(self, packets: Iterable[LayerPacket]) -> KekRecipient:
        """Return the recipient whose packets a guest finds in a layer that has these."""
        return replace(self, form=self.form.beside(packets))

    def confirms(self, packet: LayerPacket, options: PrivateOptions) -> bool:
        """Open the packet with the KEK."""
        return self.open(packet) == options

    def wrote(self, packet: LayerPacket) -> bool:
        """Return whether a packet is of the same form, and for the same key."""
        try:
            read = read_packet(packet.data)
            self.open(packet)
        except (InputError, KekError):
            return False
        return read.kid == self.name and has_form(packet, read, self.form)

    @property
    def kept(self) -> tuple[str, ...]:
        """No place that is known here."""
        return ()

    def publish(self) -> None:
        """No-op: who gave the KEK keeps it."""


def sample_recipient(form: PacketForm | None = None) -> KekRecipient:
    """Return the recipient of trials, whose KEK everybody knows.

    Args:
        form: How packets are written; ``sample`` guests open A256GCM only.
    """
    return KekRecipient(SAMPLE_KID, Kek(SAMPLE_KEK), form or PacketForm())


def opens(opener: Opener, packet: LayerPacket) -> bool:
    """Return whether a packet opens."""
    try:
        opener.open(packet)
    except CocoKpError:
        return False
    return True


def has_form(packet: LayerPacket, read: UncheckedPacket, form: PacketForm) -> bool:
    """Return whether a packet, read as ``read``, is written in this form."""
    if read.wrapped_key is None:
        return False
    found = PacketForm(read.wrapped_key.wrap_type, read.version, packet.scheme)
    return found == form._replace(scheme=form.scheme or DEFAULT_SCHEME)


def has_name(packet: LayerPacket, name: str) -> bool:
    """Return whether the packet has this key ID, or another tool wrote it under this scheme."""
    if packet.scheme == name:
        return True
    try:
        found = read_packet(packet.data).kid
        return found == name or _stem(found) == _stem(name)
    except InputError:
        return False


def _stem(kid: str) -> ResourceUri:
    return without_ciphertext(parse_key_id(kid))


def wrap_options(
    kek: Kek, kid: ResourceUri, algorithm: Algorithm, private_options: bytes
) -> AnnotationPacket:
    """Wrap a layer's private options (JSON, complete) under a fresh IV."""
    iv, wrapped = kek.wrap(algorithm, private_options)
    return AnnotationPacket(kid, wrapped, iv, algorithm)


def check_opened(private_options: bytes, kid: str, algorithm: Algorithm | None) -> PrivateOptions:
    """Read what a key made of a packet. Raises ``KekError`` if it was the wrong one.

    ``algorithm`` is None where only another provider knows. A256CTR has no tag, so that whoever
    knows what a packet holds can change it: there nothing is taken but what ocicrypt writes.
    """
    try:
        return parse_private_options(private_options, exact=algorithm is Algorithm.A256CTR)
    except InputError:
        # A256CTR has no tag: this is how a wrong key shows.
        raise wrong_kek(kid) from None


def open_packet(kek: Kek, packet: AnnotationPacket) -> bytes:
    """Unwrap a packet with its KEK. Raises ``KekError`` if that is another one."""
    try:
        return kek.unwrap(packet.wrap_type, packet.iv, packet.wrapped_data)
    except KekError:
        raise wrong_kek(str(packet.kid)) from None


def wrong_kek(kid: str) -> KekError:
    """Return the error of a key that does not open a packet; how that shows depends on the form."""
    return KekError(
        f"the key of {kid} does not open the packet",
        "the image was encrypted with another key, or altered",
    )


def check_scheme(packet: LayerPacket) -> None:
    """Raise ``InputError`` for a packet that no key provider wrote."""
    if not packet.scheme.startswith(PROVIDER_SCHEME):
        raise InputError(f"a packet of scheme {shown(packet.scheme)} is for another tool")
