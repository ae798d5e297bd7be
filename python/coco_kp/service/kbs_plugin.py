"""The gRPC door of a Trustee KBS's external plugin: ``kbs.plugin.v1.KbsPlugin``.

Attested guests ask their KBS for ``kbs+external:///BACKEND/NAME?ct=…``; the KBS asks here, and
encrypts the answer to the guest (docs/protocols.md 5.8). Who may have
which NAME is the KBS's policy: here no caller can be told from another.

The KBS logs the body of a refusal and puts it into an error, so it has none. Our own log says why.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Final, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from coco_kp.errors import CocoKpError, InputError
from coco_kp.keyprovider.server import Service
from coco_kp.keyprovider.waiting import Behavior
from coco_kp.keys.external import parse_ciphertext
from coco_kp.keys.stores.interface import CiphertextError
from coco_kp.model.resource_uri import MAX_LENGTH
from coco_kp.observe import event
from coco_kp.redact import shown
from coco_kp.service.kbs_plugin_pb2 import (
    NeedsEncryptionRequest,
    NeedsEncryptionResponse,
    PluginRequest,
    PluginResponse,
    ValidateAuthRequest,
    ValidateAuthResponse,
)
from coco_kp.service.unwrapping import UnknownNameError, Unwrapping

SERVICE: Final = "kbs.plugin.v1.KbsPlugin"

_MOST_BYTES: Final = 16 * 1024  # of a request; a key ID has a thousand
_MEMBER: Final = "ct"

_OK: Final = 200
_NOT_FOUND: Final = 404
_FAILED: Final = 500
_UNAVAILABLE: Final = 503

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


def kbs_plugin(unwrapping: Unwrapping) -> Service:
    """Return the service that unwraps KEKs."""
    methods = {
        "Handle": _method(
            PluginRequest, lambda request, seconds: _handle(unwrapping, request, seconds)
        ),
        "ValidateAuth": _method(ValidateAuthRequest, _validate_auth),
        "NeedsEncryption": _method(NeedsEncryptionRequest, _needs_encryption),
    }
    return Service(SERVICE, methods, _MOST_BYTES)


def _method(kind: type[_Request], answer: Callable[[_Request, float], _Response]) -> Behavior:
    """Return what answers; ``answer`` has the seconds that the caller waits at the most."""

    def handle(message: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            request = kind.FromString(message)
        except DecodeError:
            text = "the request is not a protobuf message"
            event(logging.INFO, "refused", method=kind.__name__, message=text)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        return answer(request, context.time_remaining()).SerializeToString()

    return handle


def _validate_auth(request: ValidateAuthRequest, _seconds: float) -> ValidateAuthResponse:
    # Attested guests read; nobody else has anything to do here.
    return ValidateAuthResponse(requires_admin_auth=request.method != "GET")


def _needs_encryption(_request: NeedsEncryptionRequest, _seconds: float) -> NeedsEncryptionResponse:
    return NeedsEncryptionResponse(requires_payload_encryption=True)


def _handle(unwrapping: Unwrapping, request: PluginRequest, seconds: float) -> PluginResponse:
    began = time.monotonic()
    name, digest, kek = "/".join(request.path), "", b""
    level, outcome, why, status = logging.INFO, "answered", "", _OK
    try:
        ciphertext = _ciphertext(request)
        digest = f"sha256:{sha256(ciphertext).hexdigest()}"
        kek = unwrapping.unwrap(name, ciphertext, seconds)
    except (UnknownNameError, CiphertextError) as error:
        outcome, why, status = "refused", str(error), _NOT_FOUND
    except CocoKpError as error:
        level, outcome, why, status = logging.ERROR, "failed", str(error), _UNAVAILABLE
    except Exception as error:  # noqa: BLE001 (one bad call must not hurt the others)
        # The error's own text could quote a secret: only its kind is shown.
        level, outcome, why, status = logging.ERROR, "bug", type(error).__name__, _FAILED
    known = name if name in unwrapping.keys else shown(name)
    fields = {"name": known, "digest": digest, "message": why}
    said = {field: text for field, text in fields.items() if text}
    event(level, outcome, **said, seconds=time.monotonic() - began)
    return PluginResponse(body=kek, status_code=status)


def _ciphertext(request: PluginRequest) -> bytes:
    """Return ``ct`` of a request of the one form that guests send. Raises ``CiphertextError``."""
    if request.method != "GET" or request.body:
        raise CiphertextError("only GET without a body is answered")
    if list(request.query) != [_MEMBER]:
        raise CiphertextError("the query is not ct alone")
    if any("/" in part for part in request.path):  # or two paths would be one name
        raise CiphertextError("a part of the path has a slash")
    if len("/".join(request.path)) + len(request.query[_MEMBER]) > MAX_LENGTH:
        raise CiphertextError(f"path and query are longer than a key ID: {MAX_LENGTH} characters")
    try:
        return parse_ciphertext(request.query[_MEMBER])
    except InputError as error:
        raise CiphertextError(error.message) from None
