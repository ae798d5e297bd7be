"""One call of the key provider, whichever door it came through: bytes in, bytes out, one record.

The first event of a call is ``began``, its last ``answered``, ``refused`` or ``bug``. Where there
is an audit log, the call is written there before its answer leaves.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from coco_kp.deadline import acquire, caller_has_gone, within
from coco_kp.errors import CocoKpError
from coco_kp.keyprovider.call import Call, MalformedRequestError, TooManyCallsError, code_of
from coco_kp.model.client import PROCESS
from coco_kp.model.clients import Clients, Rights, rights_of
from coco_kp.model.protocol import (
    UnwrapRequest,
    WrapRequest,
    parse_request,
    write_unwrap_response,
    write_wrap_response,
)
from coco_kp.observe import UNWRITTEN, event
from coco_kp.provider import KeyFileError, KeyUse, Provider
from coco_kp.service.limits import UNLIMITED, Limits
from coco_kp.service.record import CallRecord

if TYPE_CHECKING:
    from coco_kp.service.audit import AuditLog

LONGEST_CALL: Final = 30.0
"""Seconds for one call, whatever it asks of others, and of how many."""

_SMALL: Final = 16 * 1024
"""Bytes of a request, which real ones have a fraction of: reading one takes no time and no room."""

# Python parses no faster in several threads, and a hostile message of 4 MiB takes 15 times its size
# and a second while it is parsed: one at a time, for which no small one waits.
_parsing = threading.Lock()


def answer(
    provider: Provider,
    call: Call,
    audit: AuditLog | None = None,
    clients: Clients | None = None,
    limits: Limits = UNLIMITED,
    longest: float = LONGEST_CALL,
) -> bytes:
    """Answer a call in the protocol's JSON, within ``longest`` seconds.

    ``clients`` says who may do what over TLS (:mod:`coco_kp.model.clients`). Raises
    ``MalformedRequestError``, ``TooManyCallsError``, what the provider raises, and
    ``UnauditedError``. The events never hold anything of the request but a kid.
    """
    record = CallRecord(call.operation or "call", str(call.client))
    with _reported(record), _audited(record, audit), limits.place(call), within(longest):
        return _answered(provider, call, record, audit, rights_of(call.client, clients), limits)


@contextmanager
def _reported(record: CallRecord) -> Iterator[None]:
    event(UNWRITTEN, "began", method=record.operation)
    try:
        with _noted(record):
            yield
    finally:
        level, name = {
            "OK": (logging.INFO, "answered"),
            "INTERNAL": (logging.ERROR, "bug"),
        }.get(record.code, (logging.INFO, "refused"))
        who = {} if record.client == str(PROCESS) else {"client": record.client}
        said = {"kid": record.kid} if name == "answered" else {"message": record.message}
        fields = {"method": record.operation, **who, "code": record.code, **said}
        event(level, name, **fields, seconds=record.seconds)


@contextmanager
def _audited(record: CallRecord, audit: AuditLog | None) -> Iterator[None]:
    if not audit:
        yield
        return
    try:
        with _noted(record):
            audit.check()
            yield
    finally:
        audit.write(record)


@contextmanager
def _noted(record: CallRecord) -> Iterator[None]:
    """Note in the record how long the block took, and how it failed."""
    began = time.monotonic()
    try:
        yield
    except Exception as error:
        record.code = code_of(error)
        if isinstance(error, CocoKpError):
            why = error.why if isinstance(error, KeyFileError) else str(error)
            record.message = "the caller has gone" if caller_has_gone() else why
        else:
            record.message = type(error).__name__  # its text could quote the request
        raise
    finally:
        record.seconds = time.monotonic() - began


def _answered(
    provider: Provider,
    call: Call,
    record: CallRecord,
    audit: AuditLog | None,
    rights: Rights,
    limits: Limits,
) -> bytes:
    def permit(use: KeyUse) -> None:
        record.kid = str(use.kid or "")
        record.algorithm = str(use.algorithm or "")
        record.key = use.key
        for scope in use.scopes:
            rights.check(use.operation, scope, use.kek_from)

    if call.operation:
        rights.check(call.operation)  # nothing is read for who may do nothing
    request = _parsed(call, provider.name)
    if isinstance(request, WrapRequest):
        record.operation = "keywrap"
        rights.check("keywrap")
        wrapped = provider.wrap(request, permit, partial(limits.new_kek, call.client))
        for warning in wrapped.warnings:
            event(logging.WARNING, "warning", message=warning)
        record.kid, record.layer = wrapped.kid, wrapped.layer
        record.packet = wrapped.packet
        if audit and wrapped.kek:
            record.fingerprint = audit.fingerprint(wrapped.kek)
        return write_wrap_response(wrapped.packet)
    record.operation, record.packet = "keyunwrap", request.packet
    rights.check("keyunwrap")
    unwrapped = provider.unwrap(request, permit)
    record.key, record.layer = str(unwrapped.kbc), unwrapped.layer
    return write_unwrap_response(unwrapped.private_options)


def _parsed(call: Call, name: str | None) -> WrapRequest | UnwrapRequest:
    if call.malformed:
        raise MalformedRequestError(call.malformed)
    large = len(call.request) > _SMALL
    if large and not acquire(_parsing):
        raise TooManyCallsError("other large requests are still being read", "call again later")
    try:
        return parse_request(call.request, call.operation, name)
    except CocoKpError as error:
        raise error.blaming(MalformedRequestError) from None
    finally:
        if large:
            _parsing.release()
