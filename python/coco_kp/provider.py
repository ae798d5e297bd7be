"""The key provider's rules: wrap and unwrap one layer's key, without transport and without logs.

- What is wrapped is a layer's private options, complete as guests demand them.
- A packet's kid is canonical; its IV is fresh; its KEK is one that somebody keeps.
- Exactly one parameter element wraps: the protocol carries one packet in an answer.
- What is unwrapped is private options again, or the key was the wrong one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from coco_kp.crypto import SAMPLE_KEK, Kek
from coco_kp.errors import CocoKpError, InputError, KekError, shown
from coco_kp.kbc import KbcSettings, open_kbc, wrong_kek
from coco_kp.keys.kek_file import KekFile, read_kek
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.kbc_spec import KbcSpec, parse_kbc_spec
from coco_kp.model.layer_options import PrivateOptions, parse_private_options
from coco_kp.model.packet import AnnotationPacket, PacketVersion, parse_packet
from coco_kp.model.params import PARAMETERS_HINT, FileKek, SampleKek, WrapParams, parse_params
from coco_kp.model.protocol import UnwrapRequest, WrapRequest
from coco_kp.model.resource_uri import ResourceUri

if TYPE_CHECKING:
    from coco_kp.keys.registrar import Registrar

SAMPLE_KID: Final = ResourceUri("resource", "", ("default", "test-key", "1"))
"""The kid that upstream writes for its sample key."""

SAMPLE_WARNING: Final = (
    "everybody can open the image: the sample key is public, and for trials only"
)
CTR_WARNING: Final = "A256CTR does not detect tampering: verify refuses such packets unless asked"

MAX_KBCS: Final = 8
"""KBCs that one request may name; each may read a file or wait for a server."""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A packet as JSON, its kid, and what the owner of the key should know."""

    packet: bytes
    kid: ResourceUri
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """Private options as JSON (secret), the kid of their packet, and the KBC that opened it."""

    private_options: bytes = field(repr=False)
    kid: ResourceUri
    kbc: KbcSpec


@dataclass(frozen=True, slots=True)
class Provider:
    """A key provider's settings. Calls do not change it: any number may run at once.

    ``key_dir`` bounds the files that callers may name; ``kbc`` opens packets of callers that name
    no KBC themselves; ``registrar`` makes and registers KEKs, and registers those of files.
    """

    key_dir: Path | None = None
    packet_version: PacketVersion = "v1"
    kbc: KbcSpec | None = None
    kbc_settings: KbcSettings = field(default_factory=KbcSettings)
    registrar: Registrar | None = None

    def wrap(self, request: WrapRequest) -> Wrapped:
        """Wrap a layer's key as the request's parameters say.

        Raises ``InputError`` for the request, ``KekError`` and ``KeyPathForbiddenError`` for the
        key.
        """
        if not request.parameters:
            raise InputError("the request has no parameters for this provider", PARAMETERS_HINT)
        if len(request.parameters) > 1:
            raise InputError(
                f"the request names {len(request.parameters)} recipients of this provider, but the "
                "protocol's answer holds one packet",
                "give --encryption-key once, and mind that skopeo splits its value at commas",
            )
        params = parse_params(request.parameters[0])
        parse_private_options(request.private_options)
        kid, file = self._kek(params)
        packet = wrap_options(file.kek, kid, params.algorithm, request.private_options)
        warnings = file.warnings
        if isinstance(params, SampleKek):
            warnings = (*warnings, SAMPLE_WARNING)
        if params.algorithm is Algorithm.A256CTR:
            warnings = (*warnings, CTR_WARNING)
        return Wrapped(packet.to_json(self.packet_version), kid, warnings)

    def unwrap(self, request: UnwrapRequest) -> Unwrapped:
        """Give the private options that the request's packet holds.

        The KBCs that the request names are tried in order, or else this provider's own. Raises
        ``InputError`` for the packet, ``KekError`` where no key opens it.
        """
        if len(request.parameters) > MAX_KBCS:
            raise InputError(f"the request names more than {MAX_KBCS} KBCs")
        specs = [parse_kbc_spec(text) for text in request.parameters if text != "Enabled"]
        if not specs and self.kbc:
            specs = [self.kbc]
        if not specs:
            raise InputError(
                "the request names no KBC to open the packet with",
                "decrypt with provider:attestation-agent:offline_fs_kbc::null, "
                "or give this provider a KBC of its own with --kbc",
            )
        packet = parse_packet(request.packet)
        failures: list[CocoKpError] = []
        for spec in specs:
            try:
                return self._unwrap_with(spec, packet)
            except CocoKpError as failure:
                failures.append(failure)
        if len(failures) == 1:
            raise failures[0]
        tries = zip(specs, failures, strict=True)
        reasons = "; ".join(f"{shown(str(spec))}: {failure}" for spec, failure in tries)
        raise KekError(f"no KBC opened the packet: {reasons}")

    def _kek(self, params: WrapParams) -> tuple[ResourceUri, KekFile]:
        if isinstance(params, SampleKek):
            if params.algorithm is not Algorithm.A256GCM:
                # Guests' sample KBC takes every packet for A256GCM (docs/protocols.md 3.2).
                raise InputError(
                    f"sample=true with {params.algorithm} makes an image that no guest can open",
                    "leave algorithm out: guests open the sample key's packets with A256GCM only",
                )
            return SAMPLE_KID, KekFile(Kek(SAMPLE_KEK), ())
        if isinstance(params, FileKek):
            file = self._read_kek(Path(params.key_path))
            if self.registrar:
                self.registrar.register(params.key_id, file.kek)
            return params.key_id, file
        if self.registrar is None:
            raise InputError(
                "keypath is missing: without it the key would be lost after this call",
                f"{PARAMETERS_HINT}; or let the provider make and register keys: serve --kbs URL",
            )
        if params.key_id is None:
            kid, kek = self.registrar.new_kek()
            return kid, KekFile(kek, ())
        return params.key_id, KekFile(self.registrar.kek_for(params.key_id), ())

    def _read_kek(self, path: Path) -> KekFile:
        try:
            return read_kek(path, self.key_dir)
        except KekError as error:
            hint = error.hint or "the provider reads the key file itself: name it as it sees it"
            raise KekError(error.message, hint) from None

    def _unwrap_with(self, spec: KbcSpec, packet: AnnotationPacket) -> Unwrapped:
        private_options = open_kbc(spec, self.kbc_settings).unwrap(packet)
        check_opened(private_options, str(packet.kid), packet.wrap_type)
        return Unwrapped(private_options, packet.kid, spec)


def wrap_options(
    kek: Kek, kid: ResourceUri, algorithm: Algorithm, private_options: bytes
) -> AnnotationPacket:
    """Wrap a layer's private options (JSON, complete) under a fresh IV."""
    iv, wrapped = kek.wrap(algorithm, private_options)
    return AnnotationPacket(kid, wrapped, iv, algorithm)


def check_opened(private_options: bytes, kid: str, algorithm: Algorithm | None) -> PrivateOptions:
    """Read what a KEK made of a packet. Raises ``KekError`` if it was the wrong one.

    ``algorithm`` is None where only another provider knows. A256CTR has no tag, so that whoever
    knows what a packet holds can change it: there nothing is taken but what ocicrypt writes.
    """
    try:
        return parse_private_options(private_options, exact=algorithm is Algorithm.A256CTR)
    except InputError:
        # A256CTR has no tag: this is how a wrong key shows.
        raise wrong_kek(kid) from None
