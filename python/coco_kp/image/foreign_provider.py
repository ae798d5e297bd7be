"""Another ocicrypt key provider, called as ocicrypt calls it, so that it gains the engine.

It is taken from ``OCICRYPT_KEYPROVIDER_CONFIG`` (docs/protocols.md 2.1 and 2.2): a program that
answers on its standard output, or a gRPC server.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coco_kp.errors import CocoKpError, InputError, KekError, RemoteError, UnreachableError, shown
from coco_kp.files import read_file
from coco_kp.keys.wrapper import check_opened
from coco_kp.model.layer_encryption import PROVIDER_SCHEME, LayerPacket
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.ocicrypt_config import (
    MAX_CONFIG,
    VARIABLE,
    CmdProvider,
    GrpcProvider,
    parse_ocicrypt_config,
)
from coco_kp.model.packet import wrap_type_of
from coco_kp.model.protocol import (
    Operation,
    parse_unwrap_response,
    parse_wrap_response,
    write_unwrap_request,
    write_wrap_request,
)

TIMEOUT: Final = 60
"""Seconds for one call; a provider may ask a key management service far away."""

DEFAULT_PARAMETERS: Final = "Enabled"
"""What ocicrypt sends where the user wrote only the provider's name."""

_METHODS: Final[dict[Operation, str]] = {
    "keywrap": "/keyprovider.KeyProviderService/WrapKey",
    "keyunwrap": "/keyprovider.KeyProviderService/UnWrapKey",
}


def split_parameters(text: str) -> tuple[str, str]:
    """Split ``NAME[:PARAMETERS]`` as ocicrypt does; no parameters are ``Enabled``."""
    name, _, parameters = text.partition(":")
    return name, parameters or DEFAULT_PARAMETERS


@dataclass(frozen=True, slots=True)
class ForeignProvider:
    """A provider and the parameters of its calls: a recipient and an opener at once.

    ``trusted``: it need not open what it wrapped to prove that it can; upstream's cannot unwrap.
    """

    provider: str
    parameters: str
    door: CmdProvider | GrpcProvider
    unwrap_parameters: str = DEFAULT_PARAMETERS
    trusted: bool = False

    @classmethod
    def configured(
        cls,
        provider: str,
        parameters: str = DEFAULT_PARAMETERS,
        unwrap_parameters: str = DEFAULT_PARAMETERS,
        *,
        trusted: bool = False,
    ) -> ForeignProvider:
        """Look the provider up in the configuration. Raises ``InputError``."""
        path = os.environ.get(VARIABLE)
        if not path:
            raise InputError(
                f"{VARIABLE} is not set: the provider {shown(provider)} is not known",
                "it names the file that says how providers are called",
            )
        doors = parse_ocicrypt_config(read_file(Path(path), MAX_CONFIG).data)
        if provider not in doors:
            known = ", ".join(map(shown, doors))
            raise InputError(f"{shown(path)} names {known}, not {shown(provider)}")
        return cls(provider, parameters, doors[provider], unwrap_parameters, trusted)

    @property
    def name(self) -> str:
        """What a user knows it by."""
        return f"provider:{self.provider}"

    @property
    def kept(self) -> tuple[str, ...]:
        """No place of ours: the provider keeps its keys."""
        return ()

    def prepare(self) -> ForeignProvider:
        """Return itself."""
        return self

    def beside(self, packets: Iterable[LayerPacket]) -> ForeignProvider:  # noqa: ARG002
        """Return itself: its packets stand under its own name."""
        return self

    def publish(self) -> None:
        """Do nothing: the provider keeps its keys."""

    def wrap(self, private_options: bytes) -> LayerPacket:
        """Have the packet of a layer made. Raises ``RemoteError``, ``InputError``."""
        request = write_wrap_request(self.provider, self.parameters, private_options)
        packet = parse_wrap_response(self._call("keywrap", request))
        if not packet:
            raise RemoteError(f"{self.name} gave no packet", "its parameters may name no recipient")
        return LayerPacket(f"{PROVIDER_SCHEME}{self.provider}", packet)

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Have a packet opened. Raises ``RemoteError``, ``InputError``, ``KekError``."""
        if packet.scheme != f"{PROVIDER_SCHEME}{self.provider}":
            raise InputError(f"a packet of scheme {shown(packet.scheme)} is not {self.name}'s")
        wrap_type = wrap_type_of(packet.data)
        request = write_unwrap_request(self.provider, self.unwrap_parameters, packet.data)
        opened = parse_unwrap_response(self._call("keyunwrap", request))
        if not opened:
            raise KekError(f"{self.name} has no key for the packet")
        return check_opened(opened, self.name, wrap_type)

    def confirms(self, packet: LayerPacket, options: PrivateOptions) -> bool:
        """Have the packet opened again, unless the provider is trusted."""
        if self.trusted:
            return True
        try:
            return self.open(packet) == options
        except CocoKpError as error:
            raise type(error)(
                f"{self.name} does not open what it wrapped: {error.message}",
                "give the parameters for that with --provider-unwrap, or trust it with "
                "--trust-provider",
            ) from None

    def wrote(self, packet: LayerPacket) -> bool:  # noqa: ARG002
        """Never tell: what it would write now is its own affair."""
        return False

    def _call(self, operation: Operation, request: bytes) -> bytes:
        if isinstance(self.door, CmdProvider):
            return self._run(self.door, request)
        return self._ask(self.door, operation, request)

    def _run(self, door: CmdProvider, request: bytes) -> bytes:
        try:
            done = subprocess.run(
                [door.path, *door.arguments],
                input=request,
                capture_output=True,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UnreachableError(f"{self.name} did not answer within {TIMEOUT} s") from None
        except OSError as failure:
            raise RemoteError(
                f"{self.name} cannot be run: {shown(door.path)}: {failure.strerror}"
            ) from None
        if done.returncode != 0:
            said = shown(done.stderr.decode("utf-8", "replace").strip())
            raise RemoteError(f"{self.name} failed with exit code {done.returncode}: {said}")
        return done.stdout

    def _ask(self, door: GrpcProvider, operation: Operation, request: bytes) -> bytes:
        import grpc  # noqa: PLC0415 (costs more than a whole command that does not need it)

        if door.tls:
            raise InputError(
                f"{self.name} is configured with grpc-tls, which is not supported here",
                "run coco-kp on the provider's machine, or use its cmd mode",
            )
        address = door.address.removeprefix("tcp://")
        # Without a proxy, as for every key: HTTPS_PROXY is for the web.
        with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
            method = channel.unary_unary(_METHODS[operation], _message, _payload)
            call = method.future(request, timeout=TIMEOUT)
            if call.code() is grpc.StatusCode.OK:  # waits for the end
                return call.result()
            code, said = call.code().name, shown(call.details() or "")
        unreachable = code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
        raise (UnreachableError if unreachable else RemoteError)(
            f"{self.name}, {self.door}, answered {code}: {said}"
        )


def _message(payload: bytes) -> bytes:
    """Write the request message: one field, number 1, of bytes (docs/protocols.md 2.2)."""
    length, left = bytearray(), len(payload)
    while left > 0x7F:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    return b"\x0a" + bytes([*length, left]) + payload


def _payload(message: bytes) -> bytes:
    """Read the answer message, which has the same form."""
    if not message:
        return b""
    end = next((n for n, byte in enumerate(message[1:11], start=1) if byte < 0x80), 0) + 1
    payload = message[end:]
    if _message(payload) != message:
        raise InputError("the provider's answer is not the message that it should be")
    return payload
