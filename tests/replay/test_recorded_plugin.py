"""Our plugin in place of the one that a real KBS was recorded with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from coco_kp.keys.external import ciphertext_of, unwrap
from coco_kp.model.resource_uri import parse_resource_uri
from coco_kp.service.kbs_plugin import kbs_plugin
from coco_kp.service.unwrapping import Unwrapping
from tests.replay.recording import recording
from tests.support.grpc_server import serving
from tests.support.kbs_plugin import send
from tests.support.wrapping_key import LocalKey

RECORDED = recording("trustee-plugin")
KEK = bytes.fromhex(RECORDED["kek_hex"])


@dataclass(frozen=True)
class RecordedKey(LocalKey):
    """The recorded plugin's: what it bound the ciphertext to was the bare name."""

    def associated(self, context: Mapping[str, str]) -> bytes:
        return context["coco-kp"].encode()


MASTER = RecordedKey(bytes.fromhex(RECORDED["master_hex"]))


@pytest.fixture
def channel() -> Iterator[grpc.Channel]:
    with (
        serving(kbs_plugin(Unwrapping({"prod": MASTER}))) as address,
        grpc.insecure_channel(address) as opened,
    ):
        yield opened


ANSWERED = [call for call in RECORDED["calls"] if "response_hex" in call]


@pytest.mark.parametrize(
    "call", ANSWERED, ids=[f"{number} {call['method']}" for number, call in enumerate(ANSWERED)]
)
def test_plugin_answers_recorded_call_with_the_recorded_message(
    channel: grpc.Channel, call: dict[str, Any]
) -> None:
    answer = send(channel, call["method"], bytes.fromhex(call["request_hex"]))
    assert answer.hex() == call["response_hex"]


def test_recording_has_every_method_of_the_plugin() -> None:
    assert {call["method"] for call in ANSWERED} == {"ValidateAuth", "Handle", "NeedsEncryption"}


def test_recorded_kid_holds_the_kek_that_the_guest_got() -> None:
    kid = parse_resource_uri(RECORDED["kid"])
    assert len(ciphertext_of(kid)) == 12 + 32 + 16
    assert unwrap(kid, MASTER).raw() == KEK
