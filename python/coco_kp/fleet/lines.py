"""Lines of JSON: a plan has one an image, and so have its results.

Reading is strict, for a plan is run as it stands: an unknown member, action or option is refused,
with the number of the line. A key is named, never held. A plan names no program or plug-in to run,
no file but keys, and no server but registries. The forms are those of ``coco-kp schema fleet-plan``
and ``fleet-result``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import IO, Final, Literal, TypeVar, cast, get_args

from coco_kp.errors import CocoKpError, InputError
from coco_kp.files import reason
from coco_kp.keys.file_reference import FileReference, KekReference
from coco_kp.keys.named import NamedKey, key_fields, named_key
from coco_kp.keys.reference import (
    AwsKmsReference,
    AwsSecretReference,
    ExecReference,
    Pkcs11Reference,
    TransitReference,
    VaultReference,
    WrappingReference,
)
from coco_kp.model.digest import Digest, parse_digest
from coco_kp.model.encoding import member, parse_json_object
from coco_kp.model.manifest import MAX_BLOB, parse_platform
from coco_kp.model.reference import RegistryReference, parse_image_reference
from coco_kp.redact import printable_json, shown
from coco_kp.values import dataclass, field, replace

Action = Literal["encrypt", "rewrap", "verify", "inspect"]
Outcome = Literal["done", "unchanged", "moved", "refused", "failed"]
Did = Literal["nothing", "encrypt", "rewrap", "verify", "inspect"]

MAX_LINE: Final = 1024 * 1024
"""Bytes of a line at the most."""

MAX_FINDINGS: Final = 100
"""Findings of a result at the most; those beyond are left out when it is written."""

MAX_TEXTS: Final = 1000
"""Texts of a list at the most: keys, recipients, images to take layers over from."""

TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
"""How times are written, in UTC."""

_MAX_MESSAGE: Final = 2000  # characters
_MOST_SECONDS: Final = 10**9  # over 30 years
_MAX_NAMES: Final = 256 * 1024  # bytes of all recipients of a result
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_TAKEN: Final[Mapping[Action, frozenset[str]]] = {
    "encrypt": frozenset({"platforms", "skip_base", "zstd", "allow_foreign", "keep_attestations"}),
    "rewrap": frozenset(),
    "verify": frozenset({"skip_base", "allow_attestations", "target"}),
    "inspect": frozenset(),
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """What else was wanted, by the names of the one-image commands' options."""

    platforms: tuple[str, ...] = ()
    skip_base: str | None = None
    zstd: Literal["gzip", "keep", "refuse"] = "gzip"
    allow_foreign: bool = False
    keep_attestations: bool = False
    allow_attestations: bool = False
    target: Literal["coco", "nitro"] | None = None

    def document(self) -> dict[str, object]:
        """Return those that are not as by default, as JSON has them."""
        return {
            option.name: list(value) if isinstance(value, tuple) else value
            for option in fields(self)
            if (value := getattr(self, option.name)) != option.default
        }


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One image, and what is to become of it.

    ``source`` is the name that its user knows, ``digest`` what that pointed to when it was planned.
    ``destination`` is None where nothing is written, and for a rewrap in place. ``keys`` are for
    whom it is to be encrypted, as ``--recipient`` takes them; of ``verify`` those that open it.
    ``old_keys`` open what is there already: a rewrap's image, or an earlier destination. ``reuse``
    are destinations of earlier lines, of which layers can be taken over.
    """

    action: Action
    source: RegistryReference
    digest: Digest
    destination: RegistryReference | None = None
    keys: tuple[str, ...] = ()
    old_keys: tuple[str, ...] = ()
    reuse: tuple[RegistryReference, ...] = ()
    options: Options = field(default_factory=Options)

    @property
    def writes(self) -> bool:
        """Whether an image is made of it, for its keys."""
        return self.action in {"encrypt", "rewrap"}

    def document(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "action": self.action,
            "source": str(self.source),
            "digest": str(self.digest),
            "destination": str(self.destination) if self.destination else None,
            "keys": list(self.keys),
            "old_keys": list(self.old_keys),
            "reuse": list(map(str, self.reuse)),
            "options": self.options.document(),
        }

    def to_json(self) -> str:
        """Return the line, with its line feed."""
        return f"{printable_json(self.document())}\n"


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """How many layers a run encrypted, how many were encrypted before, and what stays readable."""

    encrypted: int = 0
    taken_over: int = 0
    readable: int = 0

    def document(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "encrypted": self.encrypted,
            "taken_over": self.taken_over,
            "readable": self.readable,
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """What ended the work on an image, or was found in it: ``code`` is for programs."""

    exit_code: int
    message: str
    hint: str = ""
    code: str = CocoKpError.code

    @classmethod
    def of(cls, error: CocoKpError) -> Failure:
        """Return an error as results have it."""
        return cls(error.exit_code, error.message, error.hint, error.code)

    def document(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "exit_code": self.exit_code,
            "code": self.code,
            "message": cut(self.message),
            "hint": cut(self.hint) or None,
        }


@dataclass(frozen=True, slots=True)
class ResultLine:
    """What came of one line of a plan.

    ``did`` is what was left to do, ``result`` the image that is there now, if that is known.
    ``recipients`` are all that have a packet in it; written are as many as a line has room for.
    ``layers`` is None where nothing is known of them. Bytes are those of layers. ``seconds`` is how
    long it took, ``finished`` when that was, in UTC. The exit code (docs/cli.md) is 0 where there
    is no ``error``.
    """

    line: PlanLine
    outcome: Outcome
    did: Did
    result: Digest | None
    finished: str
    seconds: float
    recipients: tuple[str, ...] = ()
    layers: LayerCounts | None = None
    findings: tuple[Failure, ...] = ()
    error: Failure | None = None
    bytes_read: int = 0
    bytes_written: int = 0

    @property
    def exit_code(self) -> int:
        """What the one-image command would have ended with."""
        return self.error.exit_code if self.error else 0

    def document(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "did": self.did,
            "result": str(self.result) if self.result else None,
            "recipients": list(_fitting(self.recipients)),
            "layers": self.layers.document() if self.layers else None,
            "findings": [finding.document() for finding in self.findings[:MAX_FINDINGS]],
            "error": self.error.document() if self.error else None,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "seconds": round(self.seconds, 3),
            "finished": self.finished,
            "line": self.line.document(),
        }

    def to_json(self) -> str:
        """Return the line, with its line feed."""
        return f"{printable_json(self.document())}\n"


def read_plan(path: Path) -> Iterator[PlanLine]:
    """Read a plan line by line. Raises ``InputError`` with the number of the line."""
    return _read(path, parse_plan_line)


def read_results(path: Path) -> Iterator[ResultLine]:
    """Read results line by line. Raises ``InputError`` with the number of the line."""
    return _read(path, parse_result_line)


def parse_plan_line(text: bytes, what: str = "the line") -> PlanLine:
    """Read a line of a plan; ``what`` names it in errors. Raises ``InputError``."""
    return _plan_line(parse_json_object(text, what, MAX_LINE), what)


def parse_result_line(text: bytes, what: str = "the line") -> ResultLine:
    """Read a line of results; ``what`` names it in errors. Raises ``InputError``."""
    document = parse_json_object(text, what, MAX_LINE)
    _check_members(document, _RESULT, what)
    error = _nullable(document, "error", dict, what)
    layers = _nullable(document, "layers", dict, what)
    result = _nullable(document, "result", str, what)
    seconds, finished = document.get("seconds"), member(document, "finished", str, what)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        seconds = -1
    if not 0 <= seconds <= _MOST_SECONDS:
        raise InputError(f"'seconds' of {what} is not a number of seconds")
    if not _is_time(finished):
        raise InputError(f"'finished' of {what} is not a time like 2026-01-31T12:00:00Z")
    read = ResultLine(
        _plan_line(member(document, "line", dict, what), f"'line' of {what}"),
        cast("Outcome", _word(document, "outcome", Outcome, what)),
        cast("Did", _word(document, "did", Did, what)),
        parse_digest(result) if result is not None else None,
        finished,
        float(seconds),
        _texts(document, "recipients", what),
        _counts(layers, f"'layers' of {what}") if layers is not None else None,
        _findings(document, what),
        _failure(error, f"'error' of {what}") if error is not None else None,
        _count(document, "bytes_read", what),
        _count(document, "bytes_written", what),
    )
    if _count(document, "exit_code", what) != read.exit_code:
        raise InputError(f"'exit_code' of {what} is not that of its error")
    if (read.outcome in {"done", "unchanged"}) != (read.error is None):
        raise InputError(f"'outcome' of {what} does not go with its error")
    return read


_PLAN: Final = frozenset(one.name for one in fields(PlanLine))
_RESULT: Final = frozenset({*(one.name for one in fields(ResultLine)), "exit_code"})


def _read(path: Path, parse: Callable[[bytes, str], T]) -> Iterator[T]:
    try:
        with path.open("rb") as file:
            yield from _parsed(file, path, parse)
    except OSError as failure:
        raise InputError(f"cannot read {shown(str(path))}: {reason(failure)}") from None


def _parsed(file: IO[bytes], path: Path, parse: Callable[[bytes, str], T]) -> Iterator[T]:
    number = 0
    while text := file.readline(MAX_LINE + 1):
        number += 1
        what = f"line {number} of {shown(str(path))}"
        try:
            yield parse(text, what)
        except InputError as error:
            if what not in error.message:
                raise error.within(what) from None
            raise


def _plan_line(document: dict[str, object], what: str) -> PlanLine:
    _check_members(document, _PLAN, what)
    action = cast("Action", _word(document, "action", Action, what))
    destination = _nullable(document, "destination", str, what)
    line = PlanLine(
        action,
        _registry_reference(member(document, "source", str, what), "source", what),
        parse_digest(member(document, "digest", str, what)),
        None
        if destination is None
        else _registry_reference(destination, "destination", what, tagged=True),
        _texts(document, "keys", what),
        _texts(document, "old_keys", what),
        tuple(
            _registry_reference(text, "reuse", what, tagged=True)
            for text in _texts(document, "reuse", what)
        ),
        _options(member(document, "options", dict, what), action, what),
    )
    check_plan_line(line, what)
    return line


def check_plan_line(line: PlanLine, what: str) -> None:
    """Refuse a line that contradicts itself. Raises ``InputError``; ``what`` names the line."""
    if line.writes and not line.keys:
        raise InputError(f"{what} names no key to {line.action} for")
    if line.action == "rewrap" and not line.old_keys:
        raise InputError(f"{what} names no old key, which opens the image")
    if (line.action == "encrypt") != (line.destination is not None) and line.action != "rewrap":
        raise InputError(f"{what} has {'no' if line.writes else 'a'} destination")
    if line.destination is None and line.action == "rewrap" and line.source.tag is None:
        raise InputError(f"{what} would change an image in place that has no tag")
    if (
        line.destination
        and line.action == "encrypt"
        and place(line.destination) == place(line.source)
    ):
        raise InputError(f"{what} would encrypt an image in place: its original would be lost")
    if line.reuse and line.action != "encrypt":
        raise InputError(f"{what} takes layers over, which encrypt alone does")
    if line.options.skip_base is not None:
        # Others are files of the machine, or texts by which skopeo may be had to run a program.
        _registry_reference(line.options.skip_base, "skip_base", what)
    for key in line.keys:
        parse_plan_key(key, what, kid_needed=line.writes)
    for key in line.old_keys:
        parse_plan_key(key, what, kid_needed=False)


def place(image: RegistryReference) -> RegistryReference:
    """Return an image's name with its host as DNS and TLS have it, to compare it with others."""
    return replace(image, host=image.host.lower().removesuffix(":443"))


def options_of(action: Action) -> frozenset[str]:
    """Return the options that an action takes, by their names in a plan."""
    return _TAKEN[action]


def parse_plan_key(text: str, what: str, *, kid_needed: bool) -> NamedKey:
    """Read a key's name in a plan, which is a file of data: it may not say what is run.

    Raises ``InputError``.
    """
    try:
        key = named_key(key_fields(text, kid_needed=kid_needed))
    except CocoKpError as error:
        raise error.blaming(InputError, f"{what}: {error.message}") from None
    _check_key_of_plan(key.source.reference, what)
    return key


def _check_key_of_plan(reference: KekReference | WrappingReference, what: str) -> None:
    """Refuse a key that is reached by what the plan says, whatever kind of reference that is."""
    server = ""
    match reference:
        case FileReference() | AwsSecretReference() | TransitReference():
            pass
        case VaultReference():
            server = reference.host
        case AwsKmsReference():
            server = reference.endpoint
        case Pkcs11Reference():
            if reference.module or reference.pin_source:
                raise InputError(
                    f"{what} names a library to load or a PIN's file, which a plan may not",
                    "set COCO_KP_PKCS11_MODULE and COCO_KP_PKCS11_PIN where it is run",
                )
        case ExecReference():
            raise InputError(
                f"{what} names a program to run, which a plan may not",
                "have it put the key into a file that only you can read, and name that with "
                "keypath=",
            )
        case _:
            raise InputError(
                f"{what} names a plug-in to load, which a plan may not",
                "wrap with a key of awskms, hashivault or pkcs11",
            )
    if server:  # which would be sent the login, or the keys of layers
        raise InputError(
            f"{what} names the server {shown(server)} of a key, which a plan may not",
            "set VAULT_ADDR or AWS_ENDPOINT_URL where it is run",
        )


def _options(document: dict[str, object], action: Action, what: str) -> Options:
    for name in document:
        if name not in _TAKEN[action]:
            known = ", ".join(sorted(_TAKEN[action])) or "none"
            raise InputError(
                f"{what} has the option {shown(name)}", f"options of {action} are: {known}"
            )
    skip_base, target = document.get("skip_base"), document.get("target")
    if not isinstance(skip_base, str | None) or target not in {None, "coco", "nitro"}:
        raise InputError(f"{what} has an option of another value than it takes")
    platforms = _texts(document, "platforms", what) if "platforms" in document else ()
    for platform in platforms:
        parse_platform(platform)
    zstd = document.get("zstd", "gzip")
    if zstd not in {"gzip", "keep", "refuse"}:
        raise InputError(f"'zstd' of {what} is not gzip, keep or refuse")

    def flag(name: str) -> bool:
        return member(document, name, bool, what) if name in document else False

    return Options(
        platforms,
        skip_base,
        zstd,
        flag("allow_foreign"),
        flag("keep_attestations"),
        flag("allow_attestations"),
        target,
    )


def _registry_reference(
    text: str, name: str, what: str, *, tagged: bool = False
) -> RegistryReference:
    reference = parse_image_reference(text)
    if not isinstance(reference, RegistryReference):
        raise InputError(f"'{name}' of {what} is not an image of a registry", "write docker://…")
    if tagged and reference.tag is None:
        raise InputError(f"'{name}' of {what} has no tag")
    return reference


def _findings(document: dict[str, object], what: str) -> tuple[Failure, ...]:
    found = member(document, "findings", list, what)
    if len(found) > MAX_FINDINGS or not all(isinstance(one, dict) for one in found):
        raise InputError(f"'findings' of {what} is not a list of at most {MAX_FINDINGS} objects")
    return tuple(_failure(one, f"a finding of {what}") for one in found)


def _failure(document: dict[str, object], what: str) -> Failure:
    _check_members(document, {"exit_code", "code", "message", "hint"}, what)
    return Failure(
        _count(document, "exit_code", what),
        member(document, "message", str, what),
        _nullable(document, "hint", str, what) or "",
        member(document, "code", str, what),
    )


def _counts(document: dict[str, object], what: str) -> LayerCounts:
    names = ("encrypted", "taken_over", "readable")
    _check_members(document, set(names), what)
    return LayerCounts(*(_count(document, name, what) for name in names))


def _check_members(
    document: Mapping[str, object], known: frozenset[str] | set[str], what: str
) -> None:
    if unknown := document.keys() - known:
        raise InputError(f"{what} has the unknown member {shown(min(unknown))}")
    if missing := known - document.keys():
        raise InputError(f"{what} has no '{min(missing)}'")


def cut(text: str) -> str:
    """Return the beginning of a message that is too long for people to read."""
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}…"


def _fitting(names: Sequence[str]) -> Iterator[str]:
    """Yield as many names as a line has room for; then how many others there are."""
    size = 0
    for number, name in enumerate(names):
        size += len(printable_json(name).encode())
        if number + 1 == MAX_TEXTS or size > _MAX_NAMES:
            yield f"and {len(names) - number} more"
            return
        yield name


def _is_time(text: str) -> bool:
    try:
        return bool(_TIME.fullmatch(text) and datetime.fromisoformat(text))
    except ValueError:
        return False


def _word(document: dict[str, object], name: str, words: object, what: str) -> str:
    """Return a member that is one of the words of a ``Literal``."""
    found, known = member(document, name, str, what), get_args(words)
    if found not in known:
        raise InputError(f"'{name}' of {what} is {shown(found)}", f"it is {', '.join(known)}")
    return found


def _nullable(document: dict[str, object], name: str, kind: type[T], what: str) -> T | None:
    return None if document[name] is None else member(document, name, kind, what)


def _texts(document: dict[str, object], name: str, what: str) -> tuple[str, ...]:
    found = member(document, name, list, what)
    if len(found) > MAX_TEXTS or not all(isinstance(one, str) and one for one in found):
        raise InputError(f"'{name}' of {what} is not a list of at most {MAX_TEXTS} texts")
    return tuple(found)


def _count(document: dict[str, object], name: str, what: str) -> int:
    found = member(document, name, int, what)
    if found < 0:
        raise InputError(f"'{name}' of {what} is negative")
    if found > MAX_BLOB:
        raise InputError(f"'{name}' of {what} is more than can be")
    return found
