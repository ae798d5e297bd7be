"""What a descriptor tells, and what guests would refuse of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coco_kp.image.facts import guest_findings, layer_facts
from coco_kp.model.layer_encryption import LayerPacket, with_encryption
from coco_kp.model.layer_options import PublicOptions
from coco_kp.model.manifest import parse_descriptor
from tests.support.nodes import GZIP, L

PACKET = {"kid": "kbs:///a/b/c", "wrapped_data": "A" * 24, "iv": "A" * 16, "wrap_type": "A256GCM"}


def layer(
    data: bytes, scheme: str = "provider.x", kind: str = f"{GZIP}+encrypted", **more: Any
) -> Any:
    annotations = with_encryption({}, [LayerPacket(scheme, data)], PublicOptions(bytes(32)))
    document = L("data", kind, annotations=annotations, **more).document()
    return layer_facts(0, parse_descriptor(document, "layer"))


def messages(data: bytes, **more: Any) -> list[str]:
    facts = layer(data, **more)
    return [str(finding) for finding in (*facts.findings, *guest_findings(facts))]


@pytest.mark.parametrize("suffix", ["", "+gzip"])
@pytest.mark.parametrize("kind", ["layer", "layer.nondistributable"])
def test_facts_of_layer_that_guests_read_have_no_findings(kind: str, suffix: str) -> None:
    media_type = f"application/vnd.oci.image.{kind}.v1.tar{suffix}+encrypted"
    assert messages(json.dumps(PACKET).encode(), kind=media_type) == []


def test_facts_report_escape_sequence_in_packet_of_version_1() -> None:
    """AA 0.6 borrows the kid from the JSON text (docs/protocols.md 3.1)."""
    escaped = json.dumps(PACKET).replace("kbs:///", "kbs:\\/\\/\\/").encode()
    (message,) = messages(escaped)
    assert "escape sequence" in message
    v2 = json.dumps({"version": "0.1.0", **PACKET}).replace("kbs:///", "kbs:\\/\\/\\/")
    assert messages(v2.encode()) == []


def test_facts_report_layer_without_packet_that_guests_read() -> None:
    (message,) = messages(b"jwe", scheme="jwe")
    assert "no packet that a guest can read" in message


def test_facts_report_escape_sequence_in_key_id_alone() -> None:
    """Other texts of the packet older guests copy (tests/recordings/guest.json, "JSON of …")."""
    assert messages(json.dumps({**PACKET, "x": "\U0001f600"}).encode()) == []
    hidden = {"x": '"kid":"kbs:///a/b/c"', **PACKET}
    escaped = json.dumps(hidden).replace('"kid": "kbs:///', '"kid": "kbs:\\/\\/\\/').encode()
    (message,) = messages(escaped)
    assert "escape sequence" in message


def test_facts_report_foreign_layer() -> None:
    document = L("data", GZIP, urls=("https://example.com/layer",)).document()
    (finding,) = guest_findings(layer_facts(0, parse_descriptor(document, "layer")))
    assert "foreign" in finding.message


def test_facts_accept_encrypted_layer_with_urls() -> None:
    """It lies in the image, where a guest finds it (guest.json, "layer descriptor/urls")."""
    assert messages(json.dumps(PACKET).encode(), urls=("https://example.com/layer",)) == []


@pytest.mark.parametrize("compression", ["+zstd", "+lzma"])
def test_facts_report_compression_that_guests_do_not_know(compression: str) -> None:
    kind = GZIP.replace("+gzip", f"{compression}+encrypted")
    (message,) = messages(json.dumps(PACKET).encode(), kind=kind)
    assert "guests cannot read encrypted layers of type" in message


def test_facts_accept_packet_with_key_held_by_cloud_kms() -> None:
    kms = {"version": "0.1.0", "kid": "key-1", "wrapped_data": "eA==", "provider": "aliyun"}
    facts = layer(json.dumps(kms).encode())
    assert [packet.provider for packet in facts.packets] == ["aliyun"]
    assert facts.findings == ()
