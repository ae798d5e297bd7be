"""``online_sev``: asks simple-kbs for the KEK over a connection that was injected at launch.

The channel is plain gRPC; what comes back is encrypted with the injected connection's key. Each
request carries a new Guid, and only the answer to that very request is accepted.
Source: docs/protocols.md 4 (online_sev).
"""

from __future__ import annotations

import math
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import grpc

from coco_kp.crypto import Kek
from coco_kp.deadline import Alarm, remaining
from coco_kp.errors import InputError, IntegrityError, KekError, RemoteError, UnreachableError
from coco_kp.files import read_file
from coco_kp.kbc.injected_secret import MAX_SECRET, THIS_GUESTS, InjectedSecrets
from coco_kp.kbc.keybroker_pb2 import OnlineSecretRequest, OnlineSecretResponse, RequestDetails
from coco_kp.keyprovider.channel import open_channel
from coco_kp.keys.wrapper import open_packet
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.encoding import decode_base64
from coco_kp.model.host_port import HostPort
from coco_kp.model.sev_secret import CONNECTION_GUID, SevConnection, parse_secret_map
from coco_kp.redact import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from coco_kp.files import StrPath
    from coco_kp.kbc.kbcs import Kbc
    from coco_kp.model.packet import AnnotationPacket
    from coco_kp.model.resource_uri import ResourceUri

DEADLINE: Final = 30.0
"""Seconds for one request, connecting included."""

_METHOD: Final = "/keybroker.KeyBrokerService/GetOnlineSecret"
_MAX_ANSWER: Final = 64 * 1024  # bytes; a KEK makes 200


class OnlineSevKbc:
    """The KBC of SEV guests that have a network."""

    def __init__(
        self,
        address: HostPort,
        connection: Callable[[], SevConnection],
        deadline: float = DEADLINE,
    ) -> None:
        self._address = address
        self._connection = connection
        self._deadline = deadline

    def unwrap(self, packet: AnnotationPacket) -> bytes:
        """Open the packet with the key that simple-kbs has under its kid's path.

        Raises ``KekError``, ``InputError``, ``RemoteError``, and ``IntegrityError`` for an answer
        that was not made for this request.
        """
        connection, guid = self._connection(), str(uuid.uuid4())
        answer = self._ask(connection.client_id, guid, packet.kid)
        secrets = parse_secret_map(self._decrypt(answer, connection.key))
        if secrets.keys() != {guid}:
            raise IntegrityError(f"{self._name} answered another request", _REPLAY_HINT)
        try:
            kek = Kek(secrets[guid])
        except KekError as error:
            raise error.within(f"{self._name}: key '{packet.kid}'") from None
        return open_packet(kek, packet)

    def close(self) -> None:
        """No-op: simple-kbs is connected to for each request."""

    def _ask(self, client: str, guid: str, kid: ResourceUri) -> OnlineSecretResponse:
        details = RequestDetails(Guid=guid, Format="binary", SecretType="key", Id=kid.path)
        request = OnlineSecretRequest(ClientId=client, SecretRequests=[details])
        with open_channel(str(self._address), _MAX_ANSWER) as channel:
            call = channel.unary_unary(
                _METHOD,
                request_serializer=OnlineSecretRequest.SerializeToString,
                response_deserializer=OnlineSecretResponse.FromString,
            )
            try:
                answering = call.future(request, timeout=remaining(self._deadline))
                with Alarm(math.inf, answering.cancel):
                    answer: OnlineSecretResponse = answering.result()
            except grpc.FutureCancelledError:
                raise UnreachableError(f"{self._name} did not answer in time") from None
            except grpc.RpcError as error:
                self._fail(error, kid)
        return answer

    def _decrypt(self, answer: OnlineSecretResponse, key: bytes) -> bytes:
        try:
            iv = decode_base64(answer.IV, "IV")
            payload = decode_base64(answer.Payload, "Payload")
            return Kek(key).unwrap(Algorithm.A256GCM, iv, payload)
        except InputError as error:
            raise RemoteError(
                f"the answer of {self._name} cannot be read: {error.message}"
            ) from None
        except KekError:
            raise IntegrityError(
                f"the answer of {self._name} does not decrypt with the connection's key",
                _REPLAY_HINT,
            ) from None

    def _fail(self, error: grpc.RpcError, kid: ResourceUri) -> NoReturn:
        code, details = error.code(), str(error.details() or "")
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise UnreachableError(
                f"{self._name} did not answer: {shown(details)}",
                "check host and port, and whether simple-kbs runs",
            ) from None
        hint = next((hint for text, hint in _HINTS.items() if text in details), "see its log")
        raise RemoteError(
            f"{self._name} refused to hand out '{kid}' ({code.name}): {shown(details)}", hint
        ) from None

    @property
    def _name(self) -> str:
        return f"simple-kbs at {self._address}"


_REPLAY_HINT: Final = "the answer was altered on its way, or meant for another guest"

_HINTS: Final = {
    "Connection not found": "it does not know the injected connection: was its database changed?",
    "no rows returned": "it has no key of this id: ids are exact, as default/key/key_id1",
    "Malformed Client ID": "the injected connection is damaged",
}


def online_sev_kbc(
    address: str,
    *,
    connection_file: StrPath | None = None,
    secrets: InjectedSecrets | None = None,
) -> Kbc:
    """Make the KBC of SEV guests that have a network.

    Args:
        address: ``host:port`` of simple-kbs.
        connection_file: The connection, in a file that is read for each packet, in place of the
            injected one.
        secrets: What takes the injected connection; None for where the kernel shows it.

    Raises:
        InputError: The address is malformed.
    """
    if not address:
        raise InputError(
            "KBC 'online_sev' needs the address of simple-kbs", "write online_sev_kbc::host:port"
        )
    place = HostPort.parse(address, "the address of simple-kbs")
    if connection_file:
        return OnlineSevKbc(place, partial(_read_connection, Path(connection_file)))
    return OnlineSevKbc(place, partial(_injected_connection, secrets or THIS_GUESTS))


def _read_connection(file: Path) -> SevConnection:
    data = read_file(file, MAX_SECRET, KekError).data
    return SevConnection.parse(data, f"the connection {shown(str(file))}")


def _injected_connection(secrets: InjectedSecrets) -> SevConnection:
    data = secrets.take(CONNECTION_GUID)
    return SevConnection.parse(data, f"the connection {secrets.name_of(CONNECTION_GUID)}")
