"""The key provider's rules: wrap and unwrap one layer's key, without transport and without logs.

- What is wrapped is a layer's private options, complete as guests demand them.
- A packet's kid is canonical; its IV is fresh; its KEK is one that somebody keeps.
- Exactly one parameter element wraps: the protocol carries one packet in an answer.
- What is unwrapped is private options again, or the key was the wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from coco_kp.crypto import Kek
from coco_kp.deadline import remaining, within
from coco_kp.errors import (
    CocoKpError,
    InputError,
    KekError,
    NotAllowedError,
    RefusedError,
    UnreachableError,
)
from coco_kp.kbc.kbcs import Kbcs
from coco_kp.keys.file_reference import FileReference
from coco_kp.keys.resolve import (
    NEW_KIDS,
    FetchedKek,
    GivenKek,
    KeySettings,
    KeySource,
    NewKek,
    SampleKek,
    StayingKey,
    UnkeptKeyError,
    resolve,
)
from coco_kp.keys.wrapper import (
    CTR_WARNING,
    SAMPLE_KID,
    SAMPLE_WARNING,
    KekRecipient,
    PacketForm,
    check_opened,
)
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.kbc_spec import KBC_NAMES, KbcSpec, parse_kbc_spec
from coco_kp.model.layer_options import parse_private_options
from coco_kp.model.packet import AnnotationPacket, PacketVersion, parse_packet
from coco_kp.model.params import (
    PARAMETERS_HINT,
    FileParams,
    KeyIdParams,
    SampleParams,
    StoreParams,
    WrapParams,
    parse_params,
)
from coco_kp.model.protocol import Operation, UnwrapRequest, WrapRequest
from coco_kp.model.resource_uri import ResourceUri, without_ciphertext
from coco_kp.redact import shown
from coco_kp.values import dataclass, field

if TYPE_CHECKING:
    from coco_kp.keys.file_reference import KekReference
    from coco_kp.keys.register import Registrar

_KEEP_HINT: Final = (
    "leave keyid out: the key then gets a key ID of its own; or name the key with keypath=, or "
    "have the provider's owner give it a directory for keys"
)

_OWN_FILES_HINT: Final = "the provider reads the key file itself: name it as it sees it"

MAX_KBCS: Final = 8
"""KBCs that one request may name; each may read a file or wait for a server."""


class KeyFileError(KekError):
    """A key file that a caller named is unusable; ``why`` is for this provider's own log alone."""

    code = "key-file-unusable"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"the key file {shown(path)} cannot be used",
            f"{_OWN_FILES_HINT}; its log has the reason, which it tells over TCP only where it has "
            "a directory for keys",
        )
        self.why = why


class KeyUse(NamedTuple):
    """Which key a call is about to use, and what for; nobody has touched it yet.

    ``kid`` is None for a key that gets one of its own, ``algorithm`` None where another provider's
    packet does not say. ``key`` is how the key is named: a reference (``file:kek``), ``sample``,
    ``new``, or the KBCs that are asked.

    Grants are asked for each of ``scopes`` and ``kek_from``: the key ID without what each image has
    of its own, or the KMS's key in its place, or the names under which the key is looked up; and
    where the key is that the caller names, a file by its absolute path, or empty.
    """

    operation: Operation
    kid: ResourceUri | None
    algorithm: Algorithm | None
    key: str
    scopes: tuple[str, ...]
    kek_from: str = ""


def _permit(_use: KeyUse) -> None:
    pass


class Wrapped(NamedTuple):
    """A packet as JSON, its kid, and what the owner of the key should know.

    ``layer`` is the digest that the layer's private options name, empty where they name none.
    ``kek`` is None where the key is not in this process.
    """

    packet: bytes
    kid: str
    warnings: tuple[str, ...]
    layer: str
    kek: Kek | None


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """Private options as JSON (secret), the kid of their packet, and the KBC that opened it.

    ``layer`` is the digest that they name, empty where they name none.
    """

    private_options: bytes = field(repr=False)
    kid: ResourceUri
    kbc: KbcSpec
    layer: str


class Provider(NamedTuple):
    """A key provider's settings. Calls do not change it: any number may run at once.

    ``key_dir`` bounds the files that callers may name; ``kbc`` opens packets of callers that name
    no KBC themselves. All are among ``kbcs``, which the provider's maker closes; without those,
    each call closes its own. ``keys_file`` is what a KBC reads, to be looked at beforehand.
    ``registrar`` registers the KEKs that are made here, and with ``register_callers_files`` those
    that callers name: whoever calls could else fetch another team's key under a name of his own.
    ``source`` is the provider's own key, for callers who name none; for the same reason it is never
    registered. ``allow_kek`` are patterns (``fnmatch``) of key references that callers may name.
    ``name`` is the one under which its callers know it, None any (`parse_request`). With
    ``files_untold`` callers learn nothing of a file that they name but whether it is a key: they
    may be on other machines.
    """

    key_dir: Path | None = None
    packet_version: PacketVersion = "v1"
    kbc: KbcSpec | None = None
    kbcs: Kbcs | None = None
    keys_file: Path | None = None
    registrar: Registrar | None = None
    register_callers_files: bool = False
    source: KeySource | None = None
    allow_kek: tuple[str, ...] = ()
    name: str | None = None
    files_untold: bool = False

    def wrap(
        self,
        request: WrapRequest,
        permit: Callable[[KeyUse], None] = _permit,
        draw: Callable[[], Kek] = Kek.generate,
    ) -> Wrapped:
        """Wrap a layer's key as the request's parameters say.

        ``permit`` is told of the use, and raises what forbids it; ``draw`` makes a new key, or
        raises. Raises ``InputError`` for the request, ``KekError`` and ``KeyPathForbiddenError``
        for the key.
        """
        if not request.parameters:
            raise InputError("the request has no parameters for this provider", PARAMETERS_HINT)
        if len(request.parameters) > 1:
            raise InputError(
                f"the request names {len(request.parameters)} recipients of this provider, but the "
                "protocol's answer holds one packet",
                "name one, and mind that skopeo splits what names them at commas",
            )
        params = self._params(request.parameters[0])
        layer = parse_private_options(request.private_options).digest
        warnings: list[str] = []
        source, kid = self._source_of(params, warnings)
        callers = isinstance(params, FileParams | StoreParams)
        kek_from = self._place(source) if callers else ""
        scope = _scope(source, kid)
        permit(KeyUse("keywrap", kid, params.algorithm, _named(source), (scope,), kek_from))
        # Callers choose the key ID: under that, the KBS would hand out what it is for.
        ours = isinstance(source, NewKek) or (callers and self.register_callers_files)
        registrar = self.registrar if ours else None
        settings = KeySettings(
            PacketForm(params.algorithm, self.packet_version),
            registrar=registrar,
            key_dir=self.key_dir,
            warn=warnings.append,
            draw=draw,
        )
        try:
            key = resolve(source, kid, settings).prepare()
        except UnkeptKeyError as error:
            raise UnkeptKeyError(error.message, _KEEP_HINT) from None
        except KekError as error:
            if self.files_untold and isinstance(params, FileParams):
                raise KeyFileError(params.key_path, str(error)) from None
            error.hint = error.hint or (_OWN_FILES_HINT if callers else "")
            raise
        packet = key.wrap(request.private_options)
        key.publish()
        if isinstance(source, FetchedKek) and self.registrar and not registrar:
            whose = "caller" if callers else "provider"
            warnings.append(f"the key of '{kid}' is the {whose}'s own: it was not registered")
        if params.algorithm is Algorithm.A256CTR:
            warnings.append(CTR_WARNING)
        kek = key.kek if isinstance(key, KekRecipient) else None
        return Wrapped(packet.data, key.name, tuple(warnings), layer, kek)

    def _params(self, text: str) -> WrapParams:
        if self.source and text in {"", "Enabled"}:  # the key has no name but its own
            return KeyIdParams(None, Algorithm.A256GCM)
        return parse_params(text)

    def _source_of(
        self, params: WrapParams, warnings: list[str]
    ) -> tuple[KeySource, ResourceUri | None]:
        """Return which key the caller means, and the key ID for it."""
        match params:
            case SampleParams():
                warnings.append(SAMPLE_WARNING)
                return SampleKek(), None
            case FileParams(kid, path):
                return FetchedKek(FileReference(path)), kid
            case StoreParams(kid, text):
                return FetchedKek(self._allowed(text)), kid
            case KeyIdParams(kid):
                if self.source is None and self.registrar is None:
                    raise InputError(
                        "keypath is missing: without it the key would be lost after this call",
                        f"{PARAMETERS_HINT}; or have its owner let the provider make keys, and "
                        "register them with a KBS",
                    )
                return self.source or NewKek(), kid

    def _place(self, source: KeySource) -> str:
        """Return where a key is that a caller names."""
        match source:
            case FetchedKek(FileReference(path)):
                file = Path(path)
                return f"file:{file if file.is_absolute() else (self.key_dir or Path.cwd()) / file}"
        return _named(source)

    def _allowed(self, text: str) -> KekReference:
        """Read a caller's reference to a store, if the provider's owner allows it."""
        from coco_kp.keys.reference import (  # noqa: PLC0415 (few callers name a store)
            name_of,
            names_code,
            parse_kek_reference,
        )

        reference = parse_kek_reference(text)
        # This process would run or read a program, file or library of the caller's choice.
        ours = isinstance(reference, FileReference) or names_code(reference)
        if ours or not any(fnmatchcase(str(reference), pattern) for pattern in self.allow_kek):
            raise RefusedError(
                f"this provider does not fetch keys from {name_of(reference)}",
                "its owner says where callers' keys may be",
                code="kek-source-not-allowed",
            )
        return reference

    def unwrap(
        self, request: UnwrapRequest, permit: Callable[[KeyUse], None] = _permit
    ) -> Unwrapped:
        """Return the private options that the request's packet holds.

        The KBCs that the request names are tried in order, or else this provider's own, each for
        its share of the time that there is (:mod:`coco_kp.deadline`). ``permit`` is told of the
        use, and raises what forbids it. Raises ``InputError`` for the packet, ``KekError`` where no
        key opens it.
        """
        if len(request.parameters) > MAX_KBCS:
            raise InputError(f"the request names more than {MAX_KBCS} KBCs")
        specs = [self._kbc_of(text) for text in request.parameters if text != "Enabled"]
        if not specs and self.kbc:
            specs = [self.kbc]
        if not specs:
            raise InputError(
                "the request names no KBC to open the packet with",
                "decrypt with provider:attestation-agent:offline_fs_kbc::null, "
                "or give this provider a KBC of its own",
                code="kbc-unnamed",
            )
        packet = parse_packet(request.packet)
        kid, kbcs = packet.kid, ", ".join(map(str, specs))
        permit(KeyUse("keyunwrap", kid, packet.wrap_type, kbcs, _lookups(kid, specs)))
        with nullcontext(self.kbcs) if self.kbcs else Kbcs() as ours:
            return _opened(ours, specs, packet)

    def _kbc_of(self, text: str) -> KbcSpec:
        """Read which KBC a caller names: one of ours, or the very plug-in of the owner's choice.

        A plug-in may do anything with an address: only the owner gives it one.
        """
        spec = parse_kbc_spec(text, (self.kbc.name,) if self.kbc else ())
        if spec.name not in KBC_NAMES and spec != self.kbc:
            raise NotAllowedError(f"callers may not give the KBC '{spec.name}' another address")
        return spec


def _opened(kbcs: Kbcs, specs: Sequence[KbcSpec], packet: AnnotationPacket) -> Unwrapped:
    """Open a packet by the first KBC that can. Raises why none could."""
    failures: list[CocoKpError] = []
    for number, spec in enumerate(specs):
        if failures and not remaining():
            failures.append(UnreachableError("not asked: the time is over"))
            continue
        try:
            # A silent one leaves the others their share of the time.
            with within(remaining() / (len(specs) - number)):
                private_options = kbcs.unwrap(spec, packet)
            options = check_opened(private_options, str(packet.kid), packet.wrap_type)
            return Unwrapped(private_options, packet.kid, spec, options.digest)
        except CocoKpError as failure:
            failures.append(failure)
    if len(failures) == 1:
        raise failures[0]
    tries = zip(specs, failures, strict=True)
    reasons = "; ".join(f"{shown(str(spec))}: {failure}" for spec, failure in tries)
    raise KekError(f"no KBC opened the packet: {reasons}")


def _named(source: KeySource) -> str:
    """Return how a key is named where nothing of it may show."""
    match source:
        case SampleKek():
            return "sample"
        case FetchedKek(reference):
            return str(reference)
        case StayingKey(reference):
            return str(reference)
        case NewKek():
            return "new"
        case GivenKek():
            return "given"


def _lookups(kid: ResourceUri, specs: Sequence[KbcSpec]) -> tuple[str, ...]:
    """Return the key IDs under which a packet's key is looked up, its own among them.

    Nothing binds a packet to its key ID: who calls may write another address or plugin into it, and
    all KBCs but ``cc`` look the key up by the path alone (docs/protocols.md 3.3).
    """
    by_path = ResourceUri("resource", "", kid.segments)
    exact = all(spec.name == "cc" for spec in specs)
    return tuple(map(str, (without_ciphertext(kid), *(() if exact else (by_path,)))))


def _scope(source: KeySource, kid: ResourceUri | None) -> str:
    """Return for which key ID a key is used, before one is made; empty where one is missing."""
    match source:
        case _ if kid:
            return str(without_ciphertext(kid))
        case SampleKek():
            return str(SAMPLE_KID)
        case NewKek():
            return str(NEW_KIDS)
        case StayingKey(reference):
            return str(reference)
    return ""
