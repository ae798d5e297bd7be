"""The one place that decides which key wraps, where it comes from, and who keeps it.

What a user named, as a value (a *source*), becomes a recipient or an opener here; the provider and
every command take what this module returns.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from coco_kp.crypto import Kek
from coco_kp.errors import InputError, RefusedError
from coco_kp.files import StrPath
from coco_kp.keys.file_reference import FileReference
from coco_kp.keys.kek import kek_of
from coco_kp.keys.kek_file import read_kek
from coco_kp.keys.key_dir import check_named_key, find_kek, find_or_make_kek
from coco_kp.keys.wrapper import (
    KekOpener,
    KekRecipient,
    KeyOpener,
    PacketForm,
    Recipient,
    sample_recipient,
)
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.layer_encryption import LayerPacket
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.resource_uri import ResourceUri
from coco_kp.observe import asking
from coco_kp.values import dataclass, replace

if TYPE_CHECKING:
    from coco_kp.keys.file_reference import KekReference
    from coco_kp.keys.reference import WrappingReference
    from coco_kp.keys.registrar import KeyRegistrar


@dataclass(frozen=True, slots=True)
class SampleKek:
    """The KEK of trials, which everybody knows."""


@dataclass(frozen=True, slots=True)
class GivenKek:
    """A KEK at hand.

    Attributes:
        kek: The key.
    """

    kek: Kek


@dataclass(frozen=True, slots=True)
class FetchedKek:
    """A KEK that is fetched from where it is kept.

    Attributes:
        reference: Where that is.
    """

    reference: KekReference


@dataclass(frozen=True, slots=True)
class NewKek:
    """A KEK that is drawn when the image is encrypted, and kept.

    Attributes:
        into: Where it is kept; with no place, the KBS or ``key_dir`` alone has it.
    """

    into: tuple[KekReference, ...] = ()


@dataclass(frozen=True, slots=True)
class StayingKey:
    """A key that never leaves its KMS or HSM, which wraps instead of us.

    Attributes:
        reference: Its name there.
    """

    reference: WrappingReference


KeySource = SampleKek | GivenKek | FetchedKek | NewKek | StayingKey


class UnkeptKeyError(RefusedError):
    """A key would be made that only a KBS keeps, under a key ID that others may use as well.

    A KBS overwrites silently: the next one who makes a key for that key ID would replace it, and
    nobody could open the first image any more.
    """

    code = "key-unkept"


NEW_KIDS: Final = ResourceUri("resource", "", ("default", "image-kek", "new"))
"""What the key IDs look like that are drawn; the last part is each one's own."""

_BASE64_HINT: Final = "it looks like base64: append encoding=base64 to the key reference's query"


def _ignore(_warning: str) -> None:
    pass


class KeySettings(NamedTuple):
    """How keys become packets, and where they go.

    Attributes:
        form: How packets are written.
        registrar: What registers every key with a KBS, where one does.
        key_dir: The directory outside of which no key file is read. Keys that are made are kept
            there, each in the file ``<repository>/<type>/<tag>``, or used where it is there. As a
            provider's directory it has each key before the first packet: also one of a call that
            ends early, or only tries.
        warn: Takes what the owner of a key should know, such as who else can read its file.
        draw: Makes a new key, or raises what forbids it.
    """

    form: PacketForm = PacketForm()
    registrar: KeyRegistrar | None = None
    key_dir: StrPath | None = None
    warn: Callable[[str], None] = _ignore
    draw: Callable[[], Kek] = Kek.generate


def resolve(
    source: KeySource, kid: ResourceUri | None, settings: KeySettings | None = None
) -> Recipient:
    """Return the recipient for a key and the key ID by which guests find it; touches nothing.

    Args:
        source: The key: where it is, or is to be kept.
        kid: Its key ID. None means a fresh one where a key is made, and none at all where a KMS
            wraps, whose packets name its own key.
        settings: How its packets are written, and who else gets it.

    Raises:
        InputError: The key ID is missing, or does not go with the source.
        RefusedError: Nothing but a KBS would keep the new key, under a key ID that others may use.
    """
    settings = settings or KeySettings()
    match source:
        case SampleKek():
            return _sample(kid, settings)
        case GivenKek() | FetchedKek():
            return _Found(source, _needed(kid), settings)
        case NewKek(into):
            return _new(into, kid, settings)
        case StayingKey(reference):
            return _staying(reference, kid, settings)


def fetch(reference: KekReference, settings: KeySettings | None = None) -> Kek:
    """Return the KEK that a store has. Raises ``KekError``, ``RemoteError``, ``InputError``."""
    settings = settings or KeySettings()
    if isinstance(reference, FileReference):
        with asking("file"):
            file = read_kek(Path(reference.path), settings.key_dir)
        for warning in file.warnings:
            settings.warn(warning)
        return file.kek
    return _stored(reference)


def _stored(reference: KekReference) -> Kek:
    # Few keep keys elsewhere than in files.
    from coco_kp.keys.reference import (  # noqa: PLC0415
        AwsSecretReference,
        VaultReference,
        name_of,
    )
    from coco_kp.keys.stores.opening import open_store  # noqa: PLC0415

    with closing(open_store(reference)) as store:
        return kek_of(
            store.fetch(),
            name_of(reference),
            _BASE64_HINT if isinstance(reference, VaultReference | AwsSecretReference) else "",
        )


def opener(source: FetchedKek | StayingKey, settings: KeySettings | None = None) -> KeyOpener:
    """Return what opens packets with a key, which is fetched or asked at the first packet.

    Close it afterwards: to a KMS it has connections. ``KekError`` for the key and ``RemoteError``
    for where it is kept are raised at the first packet, not here.

    Args:
        source: Where the key is.
        settings: Which key files may be read, and who is warned.
    """
    if isinstance(source, StayingKey):
        from coco_kp.keys.staying import StayingOpener  # noqa: PLC0415 (few name such a key)

        return StayingOpener(source.reference)
    return _FetchedOpener(source.reference, settings or KeySettings())


class _FetchedOpener:
    """Opens packets whatever their key ID says, as every KEK at hand does."""

    def __init__(self, reference: KekReference, settings: KeySettings) -> None:
        self.reference = reference
        self.settings = settings
        self._opener: KekOpener | None = None

    def open(self, packet: LayerPacket) -> PrivateOptions:
        if self._opener is None:
            from coco_kp.keys.reference import name_of  # noqa: PLC0415 (loads all kinds)

            kek = fetch(self.reference, self.settings)
            self._opener = KekOpener(kek, f"the key of {name_of(self.reference)}")
        return self._opener.open(packet)

    def close(self) -> None:
        """No-op: the key was fetched, and that closed."""


class _Found(NamedTuple):
    """A recipient whose key is there."""

    source: GivenKek | FetchedKek
    kid: ResourceUri
    settings: KeySettings

    @property
    def name(self) -> str:
        return str(self.kid)

    def prepare(self) -> KekRecipient:
        settings = self.settings
        if isinstance(self.source, GivenKek):
            kek = self.source.kek
        else:
            kek = fetch(self.source.reference, settings)
            if settings.key_dir and isinstance(self.source.reference, FileReference):
                path = Path(self.source.reference.path)
                check_named_key(Path(settings.key_dir), path, kek, self.kid)
        return _published(self.kid, kek, (), settings)


class _Made(NamedTuple):
    """A recipient whose key is yet to be drawn."""

    into: tuple[KekReference, ...]
    kid: ResourceUri | None
    settings: KeySettings

    @property
    def name(self) -> str:
        return str(self.kid or "")

    def prepare(self) -> KekRecipient:
        # Nobody else has this key ID: whatever a KBS has under it is of this image.
        kid = self.kid or _new_kid()
        if self.settings.key_dir and not self.into:
            kek = self._in_directory(Path(self.settings.key_dir), kid)
        else:
            kek = self.settings.draw()
        return _published(kid, kek, self.into, self.settings)

    def _in_directory(self, key_dir: Path, kid: ResourceUri) -> Kek:
        registrar = self.settings.registrar
        if registrar and not find_kek(key_dir, kid):
            registrar.check_unused(kid)
        return find_or_make_kek(key_dir, kid, self.settings.draw)


def _new_kid() -> ResourceUri:
    from uuid import uuid4  # noqa: PLC0415 (few keys are made, and it loads much)

    return replace(NEW_KIDS, segments=(*NEW_KIDS.segments[:2], str(uuid4())))


def _published(
    kid: ResourceUri, kek: Kek, into: tuple[KekReference, ...], settings: KeySettings
) -> KekRecipient:
    if not into and not settings.registrar:
        return KekRecipient(kid, kek, settings.form)
    # Few keep or register keys.
    from coco_kp.keys.publication import Publication  # noqa: PLC0415
    from coco_kp.keys.published import PublishedRecipient  # noqa: PLC0415

    publication = Publication(into, settings.registrar)
    publication.check(kid, kek)
    return PublishedRecipient(kid, kek, settings.form, publication=publication)


def _sample(kid: ResourceUri | None, settings: KeySettings) -> KekRecipient:
    if kid or settings.registrar:
        raise InputError("the sample key and a key of your own exclude each other")
    if settings.form.algorithm is not Algorithm.A256GCM:
        # Guests' sample KBC takes every packet for A256GCM (docs/protocols.md 3.2).
        raise InputError(
            f"the sample key with {settings.form.algorithm} makes an image that no guest can open",
            "leave the algorithm out: guests open the sample key's packets with A256GCM only",
        )
    return sample_recipient(settings.form)


def _new(
    into: tuple[KekReference, ...], kid: ResourceUri | None, settings: KeySettings
) -> Recipient:
    if not into and not settings.key_dir:
        if not settings.registrar:
            raise UnkeptKeyError("a key that is made must be kept somewhere")
        if kid:
            raise UnkeptKeyError(
                f"a new key for '{kid}' would be kept by the KBS alone, and the next one who makes "
                "a key for that key ID would replace it"
            )
    if into and kid is None and not settings.registrar:
        raise InputError("a new key needs a key ID, by which guests find it")
    return _Made(into, kid, settings)


def _staying(
    reference: WrappingReference, kid: ResourceUri | None, settings: KeySettings
) -> Recipient:
    # Few name such a key.
    from coco_kp.keys.reference import name_of  # noqa: PLC0415
    from coco_kp.keys.staying import staying_recipient  # noqa: PLC0415

    if settings.registrar:
        raise InputError(f"{name_of(reference)} does not leave its KMS or HSM: no KBS can get it")
    return staying_recipient(reference, kid, settings.form, settings.warn)


def _needed(kid: ResourceUri | None) -> ResourceUri:
    if kid is None:
        raise InputError(
            "the key ID is missing: the packet must say where a guest finds the key",
            "name it as kbs:///<repository>/<type>/<tag>",
        )
    return kid
