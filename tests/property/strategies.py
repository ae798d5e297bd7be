"""Input as nobody means it."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from hypothesis import strategies as st

from tests.support import documents, ocicrypt
from tests.support.documents import CONFIG, MANIFEST, TAR, descriptor
from tests.vectors import load_vectors

ANY_CHARACTER = st.characters(categories=None)
"""Half surrogate pairs included."""

any_text = st.text(ANY_CHARACTER)

PACKETS = [vector["packet"].encode() for vector in load_vectors("packets")["good"]]
PRIVATE_OPTIONS = load_vectors("packets")["good"][0]["optsdata"].encode()

REQUESTS = [
    ocicrypt.wrap_request("sample=true", PRIVATE_OPTIONS),
    ocicrypt.unwrap_request("sample", PACKETS[2]),
]

_CONFIG = documents.config([documents.sha256(b"layer")], variant="v8")
_LAYER = descriptor(TAR, b"layer", annotations={"a": "b"}, urls=["https://example.com/layer"])
_MANIFEST = documents.manifest(
    descriptor(CONFIG, _CONFIG), [_LAYER], subject=descriptor(MANIFEST, b"{}"), annotations={}
)
_ENTRY = descriptor(MANIFEST, _MANIFEST, platform={"os": "linux", "architecture": "amd64"})
IMAGES = [_CONFIG, _MANIFEST, documents.index([_ENTRY])]

# Words that lead deep into the parsers.
MEMBERS = [
    *("op", "keywrapparams", "keyunwrapparams", "ec", "dc", "Parameters", "DecryptConfig"),
    *("optsdata", "annotation", "attestation-agent", "pubkeys", "version", "kid", "wrapped_data"),
    *("provider", "iv", "wrap_type", "provider_settings", "annotations", "symkey", "digest"),
    *("cipheroptions", "nonce", "cipher", "hmac"),
]
WORDS = [
    *("keywrap", "keyunwrap", "kbs", "A256GCM", "A256CTR", "0.1.0", "AES_256_CTR_HMAC_SHA256"),
    *("sample", "offline_fs_kbc::null", "kbs:///a/b/c", "AAAA", "AAAAAAAAAAAAAAAA", "{}"),
    b64encode(b"sample=true").decode(),
    b64encode(PRIVATE_OPTIONS).decode(),
    b64encode(PACKETS[0]).decode(),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(MEMBERS) | st.text(), inner, max_size=6)
    ),
    max_leaves=20,
)
json_objects = st.dictionaries(st.sampled_from(MEMBERS) | st.text(), json_values, max_size=6)


@st.composite
def altered(draw: st.DrawFn, documents: list[bytes]) -> bytes:
    """A well-formed document in which a few bytes are others, lost, doubled or put in."""
    data = bytearray(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(start + 8, len(data))))
        data[start:end] = draw(st.binary(max_size=8) | st.just(bytes(data[start:end] * 2)))
    return bytes(data)


@st.composite
def retyped(draw: st.DrawFn, documents: list[bytes]) -> bytes:
    """A well-formed document in which one member, at any depth, is something else or gone."""
    document = json.loads(draw(st.sampled_from(documents)))
    places = list(_places(document))
    holder, name = draw(st.sampled_from(places))
    if draw(st.booleans()):
        holder[name] = draw(json_values)
    else:
        del holder[name]
    return json.dumps(document).encode()


def _places(value: Any) -> Any:
    """Find every member and element: what holds it, and under which name or number."""
    items: Any = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for name, inner in items:
        yield value, name
        yield from _places(inner)
