"""Tokens of PKCS #11: the vendor's module loaded, the token found, its user logged in.

A module is safe neither with threads, as it is initialised here, nor across a fork, and a call into
it cannot be broken off. So calls take turns, each with a session of its own, and one that does not
come back in time is left behind in its thread.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeVar

import pkcs11
from pkcs11 import Session, Slot, Token, TokenFlag, exceptions

from coco_kp.errors import KekError
from coco_kp.files import is_there, read_small
from coco_kp.keys.reference import Pkcs11Reference, name_of
from coco_kp.keys.stores.deadline import in_time
from coco_kp.observe import asking
from coco_kp.redact import shown

MODULE_VARIABLE: Final = "COCO_KP_PKCS11_MODULE"
PIN_VARIABLE: Final = "COCO_KP_PKCS11_PIN"

_LONGEST_PIN: Final = 255  # bytes of a PIN at the most; PKCS #11 leaves it to the token

_Result = TypeVar("_Result")

_turn = threading.Lock()
_rejected: set[tuple[bytes, bytes]] = set()
"""Serial numbers of tokens and digests of PINs that they refused."""


@dataclasses.dataclass(slots=True)
class _Loaded:
    """In which process modules were loaded, if in any."""

    process: int | None = None


_loaded = _Loaded()


def in_session(
    reference: Pkcs11Reference,
    use: Callable[[Session], _Result],
    *,
    write: bool = False,
    turn: AbstractContextManager[object] = _turn,
) -> _Result:
    """Return what ``use`` makes of a session with the token, logged in; ``write`` may change it.

    Raises ``KekError`` where module, token or PIN are missing or wrong, or where a call of ``use``
    fails; ``UnreachableError`` where it does not answer in time. A PIN that the token refused is
    not tried again in this process: repeats would lock the token.
    """
    module, pin = _module(reference), _pin(reference)
    if _loaded.process not in {None, os.getpid()}:
        raise KekError(
            "this process was forked from one that uses an HSM, whose module does not work in both",
            "start processes by spawn or forkserver, or use the key only after the fork",
        )

    def call() -> _Result:
        try:
            token = _token(_slots(module), reference)
            session = _session(token, pin, name_of(reference), write=write)
            with _closing(session):
                return use(session)
        except exceptions.PKCS11Error as error:
            raise failure(error, name_of(reference)) from None

    name = name_of(reference)
    hint = "is it reachable? what it was asked for last may still be done"
    with asking("pkcs11"):
        return in_time(call, f"the HSM of {name}", hint, turn=turn)


def failure(error: exceptions.PKCS11Error, name: str) -> KekError:
    """Return what a return code of PKCS #11 means to the user of the key ``name``."""
    for kinds, message, hint in _MEANINGS:
        if isinstance(error, kinds):
            return KekError(message.format(name), hint)
    code = str(error) if type(error) is exceptions.PKCS11Error else type(error).__name__
    return KekError(
        f"the HSM's module failed over {name}: {code}",
        "the log of the HSM or its client may say why",
    )


_Kinds = tuple[type[exceptions.PKCS11Error], ...]
_MEANINGS: Final[tuple[tuple[_Kinds, str, str], ...]] = (
    (
        (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange),
        "the token of {} refused the PIN",
        f"mend pin-source= or {PIN_VARIABLE}; this one is not tried again: repeats lock a token",
    ),
    (
        (exceptions.PinLocked,),
        "the PIN of the token of {} is locked",
        "too many wrong PINs were tried: the token's security officer can set a new one",
    ),
    (
        (exceptions.PinExpired, exceptions.UserPinNotInitialized),
        "the token of {} wants a new PIN before it is used",
        "set one with the HSM's own tool, or pkcs11-tool --init-pin",
    ),
    (
        (exceptions.MechanismInvalid,),
        "the token of {} does not do AES-GCM (CKM_AES_GCM)",
        "enable the mechanism in the HSM's configuration, or use another HSM",
    ),
    (
        (exceptions.MechanismParamInvalid,),
        "the token of {} refuses an initialisation vector that it did not draw itself",
        "HSMs in FIPS mode do so: such a key can only be used by a program of the vendor's",
    ),
    (
        (exceptions.SessionReadOnly, exceptions.TokenWriteProtected),
        "the token of {} cannot be written",
        "it is write-protected, or its user may not make objects",
    ),
    (
        (exceptions.DeviceRemoved, exceptions.TokenNotPresent),
        "the token of {} was removed",
        "is the HSM connected?",
    ),
)


def _module(reference: Pkcs11Reference) -> str:
    module = reference.module or os.environ.get(MODULE_VARIABLE, "")
    if not module:
        raise KekError(
            f"no PKCS #11 module is named for {name_of(reference)}",
            "append ?module-path=FILE, the HSM vendor's library (SoftHSM: libsofthsm2.so), or set "
            f"{MODULE_VARIABLE}",
        )
    # Under two names a library would be initialised twice, which it refuses.
    return os.path.realpath(module) if "/" in module else module


def _pin(reference: Pkcs11Reference) -> str:
    """Return the PIN, or an empty text where none is named."""
    if not reference.pin_source:
        return os.environ.get(PIN_VARIABLE, "")
    data = read_small(Path(reference.pin_source), _LONGEST_PIN, KekError)
    what = f"the PIN file {shown(reference.pin_source)}"
    try:
        pin = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise KekError(f"{what} is not UTF-8 text") from None
    if not pin:
        raise KekError(f"{what} is empty")
    return pin


def _slots(module: str) -> list[Slot]:
    """Return the slots with a token. Raises ``KekError`` where the module cannot be loaded."""
    if "/" in module and not is_there(Path(module)):
        raise KekError(
            f"there is no PKCS #11 module {shown(module)}",
            "is the HSM's client software installed? SoftHSM: apt-get install softhsm2",
        )
    _loaded.process = os.getpid()
    try:
        library = pkcs11.lib(module)
    except exceptions.PKCS11Error as error:
        code = str(error).removeprefix(f"OS exception while loading {module}: ")
        raise KekError(
            f"the PKCS #11 module {shown(module)} cannot be loaded: {code or type(error).__name__}",
            "is it the vendor's library for this system, and can it read its own configuration "
            "(SoftHSM: SOFTHSM2_CONF)?",
        ) from None
    return library.get_slots(token_present=True)


def _token(slots: list[Slot], reference: Pkcs11Reference) -> Token:
    found = [
        token
        for slot in slots
        if (token := _present(slot)) and _is_meant(token, dict(reference.attributes))
    ]
    if not found:
        raise KekError(
            f"there is no token for {name_of(reference)}",
            "pkcs11-tool --list-token-slots shows those that the module has",
        )
    if len(found) > 1:
        serials = ", ".join(shown(token.serial.decode(errors="replace")) for token in found[:5])
        raise KekError(
            f"{len(found)} tokens match {name_of(reference)}",
            f"append serial= to the token; theirs are {serials}",
        )
    return found[0]


def _present(slot: Slot) -> Token | None:
    try:
        return slot.get_token()
    except (exceptions.TokenNotPresent, exceptions.TokenNotRecognised):
        return None


def _is_meant(token: Token, attributes: dict[str, str]) -> bool:
    has = {
        "token": token.label,
        "manufacturer": token.manufacturer_id,
        "model": token.model,
        "serial": token.serial.decode(errors="replace").strip(" \0"),
    }
    initialized = TokenFlag.TOKEN_INITIALIZED in token.flags
    return initialized and all(attributes.get(name, has[name]) == has[name] for name in has)


def _session(token: Token, pin: str, name: str, *, write: bool) -> Session:
    if TokenFlag.LOGIN_REQUIRED not in token.flags:
        return token.open(rw=write)
    if not pin:
        raise KekError(
            f"the token of {name} wants a PIN",
            f"append pin-source=FILE to the query of the key reference, or set {PIN_VARIABLE}",
        )
    attempt = (token.serial, sha256(pin.encode()).digest())
    if TokenFlag.USER_PIN_LOCKED in token.flags:
        raise failure(exceptions.PinLocked(), name)
    if attempt in _rejected:
        raise failure(exceptions.PinIncorrect(), name)
    if TokenFlag.USER_PIN_FINAL_TRY in token.flags:
        raise KekError(
            f"the next wrong PIN locks the token of {name}",
            "log in once by hand, with pkcs11-tool --login --test, and try again",
        )
    try:
        return token.open(rw=write, user_pin=pin)
    except (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange):
        _rejected.add(attempt)
        raise


@contextmanager
def _closing(session: Session) -> Iterator[None]:
    """Close a session after the block; where that fails, the block's own error is the one told."""
    try:
        yield
    except BaseException:
        with suppress(exceptions.PKCS11Error):
            session.close()
        raise
    session.close()
