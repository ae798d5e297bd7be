"""KEKs wrapped in their key ID by a real HSM and by emulators of AWS KMS."""

from __future__ import annotations

import pytest

from coco_kp.keys.external import ciphertext_of, unwrap, wrap_new_kek, wrapped_kid
from coco_kp.keys.reference import parse_wrapping_reference
from coco_kp.keys.stores.interface import CiphertextError, WrappingKey
from coco_kp.keys.stores.opening import open_wrapping_key
from coco_kp.model.resource_uri import parse_key_id, parse_resource_uri

pytestmark = pytest.mark.peer

PROD = parse_key_id("kbs+external:///coco-kp/prod")


@pytest.fixture
def key(staying: str) -> WrappingKey:
    """A key of an HSM, of an emulated AWS KMS and of a simulated Vault."""
    return open_wrapping_key(parse_wrapping_reference(staying))


def test_external_kid_opens_under_its_own_name_alone(key: WrappingKey) -> None:
    kid, kek = wrap_new_kek(PROD, key)
    assert unwrap(parse_resource_uri(str(kid)), key).fingerprint == kek.fingerprint
    other = parse_resource_uri(f"kbs+external:///coco-kp/test?{kid.query}")
    with pytest.raises(CiphertextError):
        unwrap(other, key)


def test_external_ciphertext_that_was_altered_does_not_open(key: WrappingKey) -> None:
    kid, _ = wrap_new_kek(PROD, key)
    ciphertext = ciphertext_of(kid)
    altered = wrapped_kid(PROD, ciphertext[:-2] + bytes([ciphertext[-2] ^ 1]) + ciphertext[-1:])
    with pytest.raises(CiphertextError):
        unwrap(altered, key)
