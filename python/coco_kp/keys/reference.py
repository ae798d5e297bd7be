"""Key references: where a KEK is, as a URI that holds no secret (docs/keys.md).

A reference is a value: it can be pickled, logged and put in a config. Reading one touches nothing;
:mod:`.stores` opens what it names. The forms are cosign's where cosign has one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Final, Literal, cast
from urllib.parse import quote, unquote

from coco_kp.errors import InputError
from coco_kp.keys.file_reference import FileReference, KekReference
from coco_kp.redact import looks_like_a_key, shown
from coco_kp.values import dataclass, replace

MAX_REFERENCE: Final = 2048
"""Characters of a reference at the most."""

Encoding = Literal["raw", "base64"]

KEK_FROM_HINT: Final = (
    "write file:PATH, vault://[HOST[:PORT]]/MOUNT/PATH, aws-sm://[REGION]/NAME, "
    "pkcs11:token=TOKEN;object=NAME, or on the command line exec:PROGRAM ARGUMENTS"
)
WRAP_WITH_HINT: Final = (
    "write awskms://[ENDPOINT]/KEY, hashivault://KEY or pkcs11:token=TOKEN;object=NAME"
)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?"
)
# No dot segments: a client that resolves them would read another secret than the one that is named.
_SEGMENT: Final = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.-]+"
_PATH: Final = re.compile(f"{_SEGMENT}(?:/{_SEGMENT})+")
_SECRET_NAME: Final = re.compile(r"[A-Za-z0-9/_+=.@:-]+")  # of AWS Secrets Manager, or an ARN
_KMS_KEY: Final = re.compile(r"[A-Za-z0-9/_:-]+")  # key ID, alias/NAME or an ARN
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")

# RFC 7512, section 2.3: the attributes that find one object, and where the library and PIN are.
_PKCS11_PATH: Final = ("token", "manufacturer", "serial", "model", "object", "id", "type")
_PKCS11_QUERY: Final = ("module-path", "pin-source")


class WrappingReference:
    """A key that never leaves its KMS or HSM, which wraps and unwraps instead.

    As text it is a URI that holds no secret, which ``parse_wrapping_reference`` reads.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ExecReference(KekReference):
    """``exec:PROGRAM ARGUMENTS``: a program that prints the 32 bytes; no shell reads the line."""

    arguments: tuple[str, ...]

    def __str__(self) -> str:
        """Return the URI."""
        return f"exec:{shlex.join(self.arguments)}"


@dataclass(frozen=True, slots=True)
class VaultReference(KekReference):
    """``vault://[HOST[:PORT]]/MOUNT/PATH[?kv=1|2][&field=NAME][&encoding=raw|base64]``.

    A secret of Vault's key-value engine. Without a host ``VAULT_ADDR`` names the server. ``field``
    is a member of the secret; a string holds the bytes in ``encoding``, a JSON array of 32 numbers
    is the bytes in either.
    """

    host: str
    path: str
    version: Literal[1, 2] = 2
    field: str = "data"
    encoding: Encoding = "raw"

    def __str__(self) -> str:
        """Return the URI."""
        members = {"kv": str(self.version), "field": self.field, "encoding": self.encoding}
        defaults = {"kv": "2", "field": "data", "encoding": "raw"}
        return f"vault://{self.host}/{self.path}{_query(members, defaults)}"


@dataclass(frozen=True, slots=True)
class TransitReference(WrappingReference):
    """``hashivault://KEY``: a key of Vault's transit engine, as cosign names it.

    ``VAULT_ADDR`` names the server, ``TRANSIT_SECRET_ENGINE_PATH`` the engine's mount.
    """

    key: str

    def __str__(self) -> str:
        """Return the URI."""
        return f"hashivault://{self.key}"


@dataclass(frozen=True, slots=True)
class AwsSecretReference(KekReference):
    """``aws-sm://[REGION]/NAME[?stage=STAGE][&encoding=raw|base64]``: AWS Secrets Manager.

    ``name`` may be an ARN. Without a region AWS's own settings name it.
    """

    region: str
    name: str
    stage: str = "AWSCURRENT"
    encoding: Encoding = "raw"

    def __str__(self) -> str:
        """Return the URI."""
        members = {"stage": self.stage, "encoding": self.encoding}
        defaults = {"stage": "AWSCURRENT", "encoding": "raw"}
        return f"aws-sm://{self.region}/{self.name}{_query(members, defaults)}"


@dataclass(frozen=True, slots=True)
class AwsKmsReference(WrappingReference):
    """``awskms://[ENDPOINT]/KEY[?context=NAME=VALUE…]``: a symmetric key of AWS KMS.

    ``key`` is a key ID, ``alias/NAME`` or an ARN; ``context`` the encryption context, which each
    use of the key must repeat.
    """

    endpoint: str
    key: str
    context: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Return the URI."""
        pairs = "&".join(
            f"context={_quoted(name)}={_quoted(value)}" for name, value in self.context
        )
        return f"awskms://{self.endpoint}/{self.key}{'?' if pairs else ''}{pairs}"


@dataclass(frozen=True, slots=True)
class Pkcs11Reference(KekReference, WrappingReference):
    """``pkcs11:…``: an object of an HSM or token (RFC 7512); texts are percent-decoded.

    The bytes of ``id`` are its characters, which are all below 256.
    ``attributes`` find the token and the object on it. ``module`` is the vendor's library, empty
    for that of ``COCO_KP_PKCS11_MODULE``; ``pin_source`` a file, empty for ``COCO_KP_PKCS11_PIN``.
    """

    attributes: tuple[tuple[str, str], ...]
    module: str = ""
    pin_source: str = ""

    def __str__(self) -> str:
        """Return the URI."""
        path = ";".join(
            f"{name}={quote(value, safe='._-~', encoding=_encoding_of(name))}"
            for name, value in self.attributes
        )
        named = (("module-path", self.module), ("pin-source", self.pin_source))
        query = "&".join(f"{name}={quote(value, safe='/:._-~')}" for name, value in named if value)
        return f"pkcs11:{path}{'?' if query else ''}{query}"


@dataclass(frozen=True, slots=True)
class PluginReference(WrappingReference):
    """A URI of a scheme that an entry point of ``coco_kp.key_wrappers`` opens."""

    scheme: str
    uri: str

    def __str__(self) -> str:
        """Return the URI."""
        return self.uri


def name_of(reference: KekReference | WrappingReference) -> str:
    """Return a reference as messages show it: of an HSM's, token and object alone."""
    if isinstance(reference, Pkcs11Reference):
        reference = replace(reference, module="", pin_source="")
    return shown(str(reference))


def names_code(reference: KekReference | WrappingReference) -> bool:
    """Return whether a reference says what this machine runs or loads, or where its PIN is.

    Whoever writes one for others may not say that; a kind that is not known here says it.
    """
    match reference:
        case FileReference() | VaultReference() | AwsSecretReference():
            return False
        case TransitReference() | AwsKmsReference():
            return False
        case Pkcs11Reference():
            return bool(reference.module or reference.pin_source)
    return True


def parse_kek_reference(text: str) -> KekReference:
    """Read where a KEK can be fetched from. This touches nothing (docs/keys.md).

    The forms are ``file:PATH``, ``vault://[HOST[:PORT]]/MOUNT/PATH``, ``aws-sm://[REGION]/NAME``,
    ``pkcs11:token=TOKEN;object=NAME`` and ``exec:PROGRAM ARGUMENTS``, which runs a
    program: refuse it where the text is somebody else's.

    Raises:
        InputError: It has none of the forms, or holds what looks like a key.
    """
    scheme, rest = _scheme(text, KEK_FROM_HINT)
    match scheme:
        case "file":
            return _file(rest)
        case "exec":
            return _exec(rest)
        case "vault":
            return _vault(rest)
        case "aws-sm":
            return _aws_secret(rest)
        case "pkcs11":
            return _pkcs11(rest)
    raise InputError(f"a key cannot be fetched from {shown(text)}", KEK_FROM_HINT)


def parse_wrapping_reference(text: str) -> WrappingReference:
    """Read the name of a key that stays in its KMS or HSM. This touches nothing (docs/keys.md).

    The forms are ``awskms://[ENDPOINT]/KEY``, ``hashivault://KEY``,
    ``pkcs11:token=TOKEN;object=NAME``, and any scheme that a package opens.

    Raises:
        InputError: It has none of the forms, or holds what looks like a key.
    """
    scheme, rest = _scheme(text, WRAP_WITH_HINT)
    match scheme:
        case "awskms":
            return _aws_kms(rest)
        case "hashivault":
            return TransitReference(_matching(_NAME, rest.removeprefix("//"), "transit key"))
        case "pkcs11":
            return _pkcs11(rest)
        case "file" | "exec" | "vault" | "aws-sm":
            raise InputError(
                f"{scheme}: names a key that is fetched, and does not wrap by itself",
                WRAP_WITH_HINT,
            )
    return PluginReference(scheme, text)


def _scheme(text: str, hint: str) -> tuple[str, str]:
    if len(text) > MAX_REFERENCE:
        raise InputError(f"a key reference has more than {MAX_REFERENCE} characters", hint)
    if not text.isprintable():
        raise InputError("a key reference has a character that cannot be printed", hint)
    scheme, colon, rest = text.partition(":")
    if not colon or not _SCHEME.fullmatch(scheme):
        raise InputError(f"{shown(text)} is not a key reference: it has no scheme", hint)
    if scheme not in {"file", "exec"} and looks_like_a_key(text):
        raise InputError("a key reference names a key, and must not hold one", hint)
    return scheme, rest


def _file(rest: str) -> FileReference:
    path = rest.removeprefix("//") if rest.startswith("///") else rest
    if not path:
        raise InputError("file: lacks a path", "write file:PATH")
    return FileReference(path)


def _exec(rest: str) -> ExecReference:
    try:
        arguments = tuple(shlex.split(rest))
    except ValueError:
        raise InputError("the command line of exec: has an open quote", KEK_FROM_HINT) from None
    if not arguments:
        raise InputError("exec: lacks a program", "write exec:PROGRAM ARGUMENTS")
    return ExecReference(arguments)


def _vault(rest: str) -> VaultReference:
    host, path, members = _authority(rest, "vault", ("kv", "field", "encoding"))
    _matching(_PATH, path, "vault path, MOUNT/PATH")
    version = members.get("kv", "2")
    if version not in {"1", "2"}:
        raise InputError(f"kv is {shown(version)}, not 1 or 2")
    field = _matching(_NAME, members.get("field", "data"), "field")
    number = cast("Literal[1, 2]", int(version))
    return VaultReference(host, path, number, field, _encoding(members))


def _aws_secret(rest: str) -> AwsSecretReference:
    region, name, members = _authority(rest, "aws-sm", ("stage", "encoding"))
    stage = _matching(_NAME, members.get("stage", "AWSCURRENT"), "stage")
    _matching(_SECRET_NAME, name, "secret's name")
    return AwsSecretReference(region, name, stage, _encoding(members))


def _aws_kms(rest: str) -> AwsKmsReference:
    body, _, query = rest.partition("?")
    endpoint, key, _ = _authority(body, "awskms", ())
    context: dict[str, str] = {}
    for piece in query.split("&") if query else []:
        member, _, pair = piece.partition("=")
        name, equals, value = pair.partition("=")
        if member != "context" or not name or not equals:
            raise InputError(f"{shown(piece)} is unknown", "write awskms:///KEY?context=NAME=VALUE")
        if unquote(name) in context:
            raise InputError(f"the context has {shown(unquote(name))} twice")
        context[unquote(name)] = unquote(value)
    return AwsKmsReference(endpoint, _matching(_KMS_KEY, key, "KMS key"), tuple(context.items()))


def _pkcs11(rest: str) -> Pkcs11Reference:
    path, _, query = rest.partition("?")
    found = _members(path.split(";") if path else [], _PKCS11_PATH)
    options = _members(query.split("&") if query else [], _PKCS11_QUERY)
    if not {"object", "id"} & found.keys():
        raise InputError(
            "the pkcs11: URI names no object",
            "write pkcs11:token=TOKEN;object=NAME (RFC 7512), with a query of module-path= and "
            "pin-source=, or COCO_KP_PKCS11_MODULE and COCO_KP_PKCS11_PIN",
        )
    pin_source = options.get("pin-source", "").removeprefix("file:")
    return Pkcs11Reference(tuple(found.items()), options.get("module-path", ""), pin_source)


def _authority(rest: str, scheme: str, known: tuple[str, ...]) -> tuple[str, str, dict[str, str]]:
    """Split ``//[HOST]/PATH?QUERY``."""
    form = f"write {scheme}://[HOST]/…"
    if not rest.startswith("//"):
        raise InputError(f"{scheme}: lacks two slashes", form)
    body, _, query = rest[2:].partition("?")
    host, slash, path = body.partition("/")
    if not slash or not path:
        raise InputError(f"{scheme}://{shown(body)} names no key", form)
    if host and not _HOST.fullmatch(host):
        raise InputError(
            f"{shown(host)} is not HOST or HOST:PORT",
            "credentials are not part of a key reference: they come from the environment",
        )
    return host, path, _members(query.split("&") if query else [], known)


def _members(pieces: list[str], known: tuple[str, ...]) -> dict[str, str]:
    members: dict[str, str] = {}
    for piece in pieces:
        name, equals, value = piece.partition("=")
        if name in {"pin-value", "token-value", "password"}:
            raise InputError(
                f"{name} would show the secret to everybody who sees the key reference",
                "put the PIN into a file for pin-source=, or into COCO_KP_PKCS11_PIN",
            )
        if name not in known or not equals or not value:
            raise InputError(
                f"{shown(piece)} is unknown in a key reference",
                f"known are: {', '.join(f'{one}=' for one in known) or 'none'}",
            )
        if name in members:
            raise InputError(f"{name} is given twice in a key reference")
        try:
            members[name] = unquote(value, encoding=_encoding_of(name), errors="strict")
        except UnicodeDecodeError:
            raise InputError(f"{name} of a key reference is not UTF-8 text") from None
    return members


def _encoding_of(member: str) -> str:
    return "latin-1" if member == "id" else "utf-8"  # an object's ID is bytes


def _encoding(members: Mapping[str, str]) -> Encoding:
    encoding = members.get("encoding", "raw")
    if encoding not in {"raw", "base64"}:
        raise InputError(f"encoding is {shown(encoding)}", "write encoding=raw or encoding=base64")
    return cast("Encoding", encoding)


def _matching(form: re.Pattern[str], text: str, what: str) -> str:
    if not form.fullmatch(text):
        raise InputError(f"{shown(text)} is not a {what}")
    return text


def _query(members: Mapping[str, str], defaults: Mapping[str, str]) -> str:
    pairs = [f"{name}={value}" for name, value in members.items() if value != defaults[name]]
    return f"?{'&'.join(pairs)}" if pairs else ""


def _quoted(text: str) -> str:
    return quote(text, safe="._-~")
