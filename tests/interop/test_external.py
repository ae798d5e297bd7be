"""KEKs wrapped in their key ID by a real HSM and by emulators of AWS KMS."""

from __future__ import annotations

import pytest

from coco_kp.keys.external import unwrap, wrap_new_kek
from coco_kp.keys.reference import parse_wrapping_reference
from coco_kp.keys.stores import CiphertextError, open_wrapping_key
from coco_kp.model.resource_uri import parse_key_id, parse_resource_uri
from tests.peers.softhsm import MASTER, PIN, SoftHsm

pytestmark = pytest.mark.peer

PROD = parse_key_id("kbs+external:///coco-kp/prod")


def test_external_kid_of_an_hsm_opens_under_its_own_name_alone(
    softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COCO_KP_PKCS11_PIN", PIN)
    key = open_wrapping_key(parse_wrapping_reference(softhsm.uri(MASTER)))
    kid, kek = wrap_new_kek(PROD, key)
    assert unwrap(parse_resource_uri(str(kid)), key).fingerprint == kek.fingerprint
    other = parse_resource_uri(f"kbs+external:///coco-kp/test?{kid.query}")
    with pytest.raises(CiphertextError):
        unwrap(other, key)
