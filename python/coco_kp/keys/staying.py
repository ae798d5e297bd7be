"""Keys that stay in their KMS or HSM: who wraps with one, and who opens (docs/keys.md).

Three forms, each of which guests can open: the packet of AWS KMS, an ordinary packet that an HSM
makes with a key that the KBS has as well, and an ordinary packet under a fresh KEK whose wrapped
form stands in its key ID, for the KBS's plug-in to unwrap.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from coco_kp.errors import CocoKpError, InputError, KekError
from coco_kp.keys.external import unwrap, wrap_new_kek
from coco_kp.keys.reference import AwsKmsReference, TransitReference, WrappingReference, name_of
from coco_kp.keys.stores.interface import CloudKey, GcmKey, WrappingKey
from coco_kp.keys.stores.opening import open_wrapping_key
from coco_kp.keys.wrapper import (
    KekOpener,
    KekRecipient,
    PacketForm,
    check_opened,
    check_scheme,
    has_form,
    has_name,
)
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.layer_encryption import DEFAULT_SCHEME, LayerPacket
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.packet import AnnotationPacket, KmsPacket, UncheckedPacket, read_packet
from coco_kp.model.resource_uri import ResourceUri, parse_resource_uri
from coco_kp.redact import shown
from coco_kp.values import dataclass, field, replace

KMS_WARNING: Final = (
    "only guests whose Confidential Data Hub was built with the provider aws (0.21 or newer, "
    "KMS_PROVIDER=aws) open the image: no default build is"
)


def staying_recipient(
    reference: WrappingReference,
    kid: ResourceUri | None,
    form: PacketForm,
    warn: Callable[[str], None],
) -> KmsRecipient | ExternalRecipient | HsmRecipient:
    """Return the recipient for a key and the key ID by which guests find it; touches nothing.

    ``kid`` None means packets of the KMS. ``warn`` takes what the owner of the key should know.
    Raises ``InputError`` for what does not go with such a key.
    """
    if form.algorithm is not Algorithm.A256GCM:
        raise InputError(f"{name_of(reference)} wraps with A256GCM only")
    if kid is None:
        if not isinstance(reference, AwsKmsReference):
            raise InputError(
                f"no guest asks {name_of(reference)} for a key: a key ID is needed",
                "name kbs+external:///coco-kp/NAME for a KBS with the plug-in of coco-kp, or for a "
                "key of an HSM that the KBS has as well, that one's key ID",
            )
        warn(KMS_WARNING)
        return KmsRecipient(reference, form)
    if kid.plugin == "external":
        return ExternalRecipient(kid, reference, form)
    if isinstance(reference, AwsKmsReference | TransitReference):
        raise InputError(
            f"no guest can open what {name_of(reference)} wraps for '{kid}': a KBS hands out "
            "keys, and this one does not leave its KMS",
            "name a key ID kbs+external:///coco-kp/NAME; for AWS KMS, or none",
        )
    return HsmRecipient(kid, reference, form)


@dataclass(frozen=True, slots=True)
class KmsRecipient:
    """Guests that have AWS KMS decrypt a layer's private options: packets of provider ``aws``."""

    reference: AwsKmsReference
    form: PacketForm

    @property
    def name(self) -> str:
        """The key, as the packet names it."""
        return self.reference.key

    def prepare(self) -> KmsRecipient:
        """Return itself, if KMS encrypts with the key."""
        # Before a layer is read. Describing the key would need one more permission.
        with self._key() as key:
            key.encrypt(b"a trial", {})
        return self

    def beside(self, packets: Iterable[LayerPacket]) -> KmsRecipient:
        """Return the recipient whose packets a guest finds in a layer that has these."""
        return replace(self, form=self.form.beside(packets))

    def wrap(self, private_options: bytes) -> LayerPacket:
        """Have KMS encrypt the private options."""
        context = dict(self.reference.context)
        with self._key() as key:
            wrapped = key.encrypt(private_options, {})
            packet = KmsPacket(self.reference.key, wrapped, key.region, context)
        return self.form.layer_packet(packet.to_json())

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Have KMS decrypt a packet. Raises ``KekError``, ``RemoteError``, ``InputError``."""
        with closing(StayingOpener(self.reference)) as opener:
            return opener.open(packet)

    def re_encrypt(self, packet: LayerPacket, source: AwsKmsReference) -> LayerPacket | None:
        """Have KMS move a packet from another key to this one; None if it is not one of KMS.

        The layer's key does not leave KMS, and so nobody has seen that the packet holds it.
        """
        kms = read_packet(packet.data).kms
        if kms is None:
            return None
        if any(kms.context.get(name) != value for name, value in source.context):
            raise KekError(f"the packet has another encryption context than {shown(str(source))}")
        context = tuple(kms.context.items())
        with self._key() as key:
            moved = key.re_encrypt(kms.wrapped_data, replace(source, context=context))
            new = KmsPacket(self.reference.key, moved, key.region, dict(self.reference.context))
        return self.form.layer_packet(new.to_json())

    def confirms(self, packet: LayerPacket, options: PrivateOptions) -> bool:
        """Have KMS decrypt the packet."""
        return self.open(packet) == options

    def wrote(self, packet: LayerPacket) -> bool:
        """Return whether the packet is for the same key, and opens."""
        try:
            kms = read_packet(packet.data).kms
            self.open(packet)
        except CocoKpError:
            return False
        same_scheme = packet.scheme == (self.form.scheme or DEFAULT_SCHEME)
        return kms is not None and kms.key == self.reference.key and same_scheme

    @property
    def kept(self) -> tuple[str, ...]:
        """No place: nothing was made."""
        return ()

    def publish(self) -> None:
        """No-op: the key is where it stays."""

    @contextmanager
    def _key(self) -> Iterator[CloudKey]:
        with closing(open_wrapping_key(self.reference)) as key:
            if not isinstance(key, CloudKey):
                raise InputError(f"{name_of(self.reference)} is not a key of AWS KMS")
            yield key


@dataclass(frozen=True, slots=True)
class HsmRecipient:
    """A key that an HSM and a KBS have: packets as with any KEK, encrypted inside the HSM."""

    kid: ResourceUri
    reference: WrappingReference
    form: PacketForm

    @property
    def name(self) -> str:
        """Its key ID."""
        return str(self.kid)

    def prepare(self) -> HsmRecipient:
        """Return itself, if the HSM has such a key."""
        with closing(_gcm_key(self.reference)) as key:
            key.check()
        return self

    def beside(self, packets: Iterable[LayerPacket]) -> HsmRecipient:
        """Return the recipient whose packets a guest finds in a layer that has these."""
        return replace(self, form=self.form.beside(packets))

    def wrap(self, private_options: bytes) -> LayerPacket:
        """Have the HSM encrypt the private options, under an IV of ours."""
        iv = os.urandom(Algorithm.A256GCM.iv_size)
        with closing(_gcm_key(self.reference)) as key:
            wrapped = key.encrypt_gcm(iv, private_options)
        packet = AnnotationPacket(self.kid, wrapped, iv, Algorithm.A256GCM)
        return self.form.layer_packet(packet.to_json(self.form.version))

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Have the HSM decrypt a packet. Raises ``KekError``, ``InputError``."""
        with closing(StayingOpener(self.reference)) as opener:
            return opener.open(packet)

    def confirms(self, packet: LayerPacket, options: PrivateOptions) -> bool:
        """Have the HSM decrypt the packet."""
        return self.open(packet) == options

    def wrote(self, packet: LayerPacket) -> bool:
        """Return whether the packet is of the same form, and opens."""
        try:
            read = read_packet(packet.data)
            self.open(packet)
        except CocoKpError:
            return False
        return read.kid == self.name and has_form(packet, read, self.form)

    @property
    def kept(self) -> tuple[str, ...]:
        """No place: nothing was made."""
        return ()

    def publish(self) -> None:
        """No-op: the key is where it stays."""


@dataclass(frozen=True, slots=True)
class ExternalRecipient:
    """A fresh KEK, wrapped by a key that stays; a KBS has its plug-in unwrap it for guests."""

    kid: ResourceUri
    reference: WrappingReference
    form: PacketForm

    @property
    def name(self) -> str:
        """Its key ID, without the wrapped KEK that is yet to be made."""
        return str(self.kid)

    def prepare(self) -> ExternalKek:
        """Draw a KEK and have it wrapped, and see that it unwraps to the same."""
        with closing(open_wrapping_key(self.reference)) as key:
            kid, kek = wrap_new_kek(self.kid, key)
            if unwrap(kid, key).fingerprint != kek.fingerprint:
                raise KekError(f"{name_of(self.reference)} does not unwrap what it wrapped")
        return ExternalKek(kid, kek, self.form, earlier=StayingOpener(self.reference))


@dataclass(frozen=True, slots=True)
class ExternalKek(KekRecipient):
    """A fresh KEK; ``earlier`` opens what those before it wrapped under the same name."""

    # No super() here: with slots, it would name another class than this.
    earlier: StayingOpener = field(kw_only=True, compare=False)

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Open a packet. Raises ``KekError``, ``RemoteError``, ``InputError``."""
        try:
            return KekRecipient.open(self, packet)
        except KekError:
            if not has_name(packet, self.name):
                raise
        # A copy, so that threads close what is their own; the KEKs that were unwrapped are for all.
        with closing(dataclasses.replace(self.earlier)) as opener:
            return opener.open(packet)

    def wrote(self, packet: LayerPacket) -> bool:
        """Return whether this or an earlier KEK of the name made such a packet, and it opens."""
        if not has_name(packet, self.name):
            return False
        kid = parse_resource_uri(read_packet(packet.data).kid)
        return KekRecipient.wrote(replace(self, kid=kid), packet)

    def confirms(self, packet: LayerPacket, options: PrivateOptions) -> bool:
        """Open the packet with this KEK."""
        own = read_packet(packet.data).kid == self.name
        return own and KekRecipient.open(self, packet) == options


@dataclasses.dataclass(slots=True)
class StayingOpener:
    """Has packets of all three forms opened by a key that stays; threads may share it."""

    reference: WrappingReference
    _key: WrappingKey | None = dataclasses.field(default=None, repr=False)
    _keks: dict[str, KekOpener] = dataclasses.field(default_factory=dict, repr=False)
    _lock: threading.Lock = dataclasses.field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Open a packet. Raises ``KekError``, ``RemoteError``, ``InputError``."""
        check_scheme(packet)
        read = read_packet(packet.data)
        with self._lock:  # of two that were opened, one would never be closed
            key = self._key = self._key or open_wrapping_key(self.reference)
        if read.wrapped_key is None:
            return self._open_kms(read, key)
        if read.kid.startswith("kbs+external:"):
            return self._open_external(packet, read.kid, key)
        if read.wrapped_key.wrap_type is not Algorithm.A256GCM:
            raise KekError(f"the packet is wrapped with {read.wrapped_key.wrap_type}")
        opened = _gcm(key, self.reference).decrypt_gcm(
            read.wrapped_key.iv, read.wrapped_key.wrapped_data
        )
        return check_opened(opened, str(self.reference), Algorithm.A256GCM)

    def close(self) -> None:
        """Close what asks the key; a later use opens it anew."""
        with self._lock:
            key, self._key = self._key, None
        if key is not None:
            key.close()

    def _open_kms(self, read: UncheckedPacket, key: WrappingKey) -> PrivateOptions:
        if read.kms is None or not isinstance(key, CloudKey):
            raise KekError(
                f"the packet's key is held by {shown(read.provider)}, which "
                f"{name_of(self.reference)} does not name"
            )
        opened = key.decrypt(read.kms.wrapped_data, read.kms.context)
        return check_opened(opened, str(self.reference), None)

    def _open_external(self, packet: LayerPacket, kid: str, key: WrappingKey) -> PrivateOptions:
        # A KEK is that of an image, not of a layer: it is unwrapped once.
        if kid not in self._keks:
            self._keks[kid] = KekOpener(unwrap(parse_resource_uri(kid), key), shown(kid))
        return self._keks[kid].open(packet)


def _gcm_key(reference: WrappingReference) -> GcmKey:
    return _gcm(open_wrapping_key(reference), reference)


def _gcm(key: WrappingKey, reference: WrappingReference) -> GcmKey:
    if not isinstance(key, GcmKey):
        raise KekError(f"{name_of(reference)} opens no packets of a KBS: it takes no IV")
    return key
