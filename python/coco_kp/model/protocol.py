"""The JSON of the key-provider protocol (docs/protocols.md 2.3), as real clients send it.

Go writes both parameter objects with nulls in them, ocicrypt-rs writes ``optsdata`` unencoded, and
servers' answers are byte arrays in one place and base64 in another. All of it is read; what is
written is byte arrays, the one form that every client accepts.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from coco_kp.errors import InputError
from coco_kp.model.encoding import decode_base64, encode_base64, parse_json_object, write_json
from coco_kp.model.layer_encryption import DEFAULT_PROVIDER_NAME
from coco_kp.redact import shown
from coco_kp.values import dataclass, field

Operation = Literal["keywrap", "keyunwrap"]

# ocicrypt puts the parameters of its other schemes (jwe, pgp, pkcs7, pkcs11) into the same map.
_NO_PROVIDERS: Final = frozenset(
    {
        "pubkeys",
        "privkeys",
        "privkeys-passwords",
        "gpg-recipients",
        "gpg-pubkeyringfile",
        "gpg-privatekeys",
        "gpg-privatekeys-passwords",
        "gpg-client",
        "gpg-client-version",
        "x509s",
        "pkcs11-config",
        "pkcs11-pubkeys",
        "pkcs11-yamls",
    }
)

_NAMES_SHOWN: Final = 3  # of those that a request names too many of; it may hold thousands


@dataclass(frozen=True, slots=True)
class WrapRequest:
    """A call of WrapKey: the layer's private options (secret), and how to wrap them."""

    parameters: tuple[str, ...]
    private_options: bytes = field(repr=False)


class UnwrapRequest(NamedTuple):
    """A call of UnWrapKey: an annotation packet, and the KBCs that the caller names, if any."""

    parameters: tuple[str, ...]
    packet: bytes


def parse_request(
    data: bytes, operation: Operation | None = None, name: str | None = None
) -> WrapRequest | UnwrapRequest:
    """Read a request; ``operation`` is what its ``op`` must say, if it says anything.

    ``name`` is this provider's: only parameters under it are read. Without one, parameters under
    any name are, and of several the guide's own. Raises ``InputError``; its text holds nothing of
    the layer's key.
    """
    document = parse_json_object(data, "the request")
    op = document.get("op")
    if op is None:
        op = operation
    if op not in ("keywrap", "keyunwrap"):  # a tuple: what is not a string may have no hash
        raise InputError("'op' of the request is not keywrap or keyunwrap")
    if operation not in {None, op}:
        raise InputError(f"'op' of the request is {op}, but the method called is {operation}")
    if op == "keywrap":
        call = _object(document, "keywrapparams", "the request")
        config = _object(call, "ec", "'keywrapparams'")
        return WrapRequest(_parameters(config, "'ec'", name), _private_options(call))
    call = _object(document, "keyunwrapparams", "the request")
    config = _object(call, "dc", "'keyunwrapparams'")
    return UnwrapRequest(
        _parameters(config, "'dc'", name), _bytes(call.get("annotation"), "'annotation'")
    )


def write_wrap_response(packet: bytes) -> bytes:
    """Write WrapKey's answer: the packet's JSON as a byte array."""
    return b'{"keywrapresults":{"annotation":%b}}' % _byte_array(packet)


def write_unwrap_response(private_options: bytes) -> bytes:
    """Write UnWrapKey's answer: the private options as a byte array."""
    return b'{"keyunwrapresults":{"optsdata":%b}}' % _byte_array(private_options)


_DECIMAL: Final = tuple(map(str, range(256)))


def _byte_array(data: bytes) -> bytes:
    """Return bytes as a JSON array; by ``json`` it would take a tenth of a call."""
    return f"[{','.join([_DECIMAL[byte] for byte in data])}]".encode()


def write_wrap_request(name: str, parameters: str, private_options: bytes) -> bytes:
    """Write a call of WrapKey to the provider ``name``, as ocicrypt for Go does."""
    config = {"Parameters": {name: [encode_base64(parameters.encode("utf-8"))]}}
    return write_json(
        {
            "op": "keywrap",
            "keywrapparams": {
                "ec": {**config, "DecryptConfig": {"Parameters": {}}},
                "optsdata": encode_base64(private_options),
            },
            "keyunwrapparams": {"dc": None, "annotation": None},
        }
    )


def write_unwrap_request(name: str, parameters: str, packet: bytes) -> bytes:
    """Write a call of UnWrapKey to the provider ``name``, as ocicrypt for Go does."""
    config = {"Parameters": {name: [encode_base64(parameters.encode("utf-8"))]}}
    return write_json(
        {
            "op": "keyunwrap",
            "keywrapparams": {"ec": None, "optsdata": None},
            "keyunwrapparams": {"dc": config, "annotation": encode_base64(packet)},
        }
    )


def parse_wrap_response(data: bytes) -> bytes:
    """Read WrapKey's answer: the packet, empty where there is none. Raises ``InputError``."""
    results = _object(parse_json_object(data, "the answer"), "keywrapresults", "the answer")
    return _bytes(results.get("annotation") or "", "'annotation' of the answer")


def parse_unwrap_response(data: bytes) -> bytes:
    """Read UnWrapKey's answer: the private options, or nothing. Raises ``InputError``."""
    results = _object(parse_json_object(data, "the answer"), "keyunwrapresults", "the answer")
    return _bytes(results.get("optsdata") or "", "'optsdata' of the answer")


def _object(document: dict[str, object], name: str, what: str) -> dict[str, object]:
    """Return a member that is an object; null and missing are an empty one."""
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"'{name}' of {what} is not an object")
    return value


def _parameters(config: dict[str, object], what: str, own: str | None) -> tuple[str, ...]:
    """Return this provider's parameters as text; none where the client sent none.

    The client sends those of every provider, and does not say which of them it calls.
    """
    by_name = _object(config, "Parameters", what)
    names = [name for name in by_name if name not in _NO_PROVIDERS]
    if own is not None or DEFAULT_PROVIDER_NAME in names:
        names = [name for name in names if name == (own or DEFAULT_PROVIDER_NAME)]
    if len(names) > 1:
        some = ", ".join(shown(name) for name in names[:_NAMES_SHOWN])
        raise InputError(
            f"the request names {len(names)} providers, among them {some}",
            "tell this one its name",
            code="provider-name-missing",
        )
    elements = by_name[names[0]] if names else None
    if elements is None:
        return ()
    if not isinstance(elements, list):
        raise InputError(f"the parameters of provider {shown(names[0])} are not an array")
    return tuple(_text(element) for element in elements)


def _text(element: object) -> str:
    try:
        return _bytes(element, "a parameter").decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("a parameter is not UTF-8 text") from None


def _private_options(call: dict[str, object]) -> bytes:
    value = call.get("optsdata")
    if isinstance(value, str) and value.startswith("{"):  # ocicrypt-rs does not encode it
        return value.encode("utf-8")
    return _bytes(value, "'optsdata'")


def _bytes(value: object, what: str) -> bytes:
    """Read base64 text or an array of byte numbers."""
    if isinstance(value, str):
        return decode_base64(value, what)
    if isinstance(value, list):
        if all(type(number) is int and 0 <= number <= 255 for number in value):
            return bytes(value)
        raise InputError(f"{what} is an array of something else than byte numbers")
    raise InputError(f"{what} is missing" if value is None else f"{what} is not base64")
