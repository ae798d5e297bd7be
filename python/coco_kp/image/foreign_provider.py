"""Another ocicrypt key provider, called as ocicrypt calls it, so that it gains the engine.

It is taken from ``OCICRYPT_KEYPROVIDER_CONFIG`` (docs/protocols.md 2.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from coco_kp.errors import CocoKpError, InputError, KekError, RemoteError
from coco_kp.keyprovider.client import call_provider
from coco_kp.keyprovider.config import CmdProvider, GrpcProvider, read_ocicrypt_config
from coco_kp.keys.wrapper import check_opened
from coco_kp.model.layer_encryption import PROVIDER_SCHEME, LayerPacket
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.packet import wrap_type_of
from coco_kp.model.protocol import (
    Operation,
    parse_unwrap_response,
    parse_wrap_response,
    write_unwrap_request,
    write_wrap_request,
)
from coco_kp.redact import shown
from coco_kp.values import dataclass

DEFAULT_PARAMETERS: Final = "Enabled"
"""What ocicrypt sends where the user wrote only the provider's name."""


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
        path, doors = read_ocicrypt_config()
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
        """No-op: the provider keeps its keys."""

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
            unopened = error.within(f"{self.name} does not open what it wrapped")
            unopened.hint = "give the parameters for that, or trust it"
            unopened.code = "provider-cannot-unwrap"
            raise unopened from None

    def wrote(self, packet: LayerPacket) -> bool:  # noqa: ARG002
        """Never tell: what it would write now is its own affair."""
        return False

    def _call(self, operation: Operation, request: bytes) -> bytes:
        return call_provider(self.name, self.door, operation, request)
