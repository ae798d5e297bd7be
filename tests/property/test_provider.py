"""What is wrapped is unwrapped to the byte, and what was altered is not."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coco_kp.errors import CocoKpError
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.packet import PacketVersion
from coco_kp.model.protocol import UnwrapRequest, WrapRequest
from coco_kp.provider import Provider
from tests.property.strategies import PACKETS, PRIVATE_OPTIONS, altered, any_text, retyped
from tests.support.kbcs import kbcs_with

PATH = "default/key/key_id1"

private_options = st.builds(
    PrivateOptions,
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16),
    st.sampled_from(["", "sha256:" + "ab" * 32]),
).map(PrivateOptions.to_json)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a KEK, and a keys file in which it has a name."""
    folder = tmp_path_factory.mktemp("keys")
    kek = bytes(range(0x20, 0x40))  # that of the known packets
    (folder / "kek").write_bytes(kek)
    (folder / "kek").chmod(0o600)
    (folder / "keys.json").write_text(json.dumps({PATH: b64encode(kek).decode()}))
    return folder


def provider(folder: Path, version: PacketVersion = "v1") -> Provider:
    kbcs = kbcs_with(folder / "keys.json")
    return Provider(key_dir=folder, packet_version=version, kbcs=kbcs)


@given(
    private_options,
    st.sampled_from(["A256GCM", "A256CTR"]),
    st.sampled_from(["kbs:///{}", "/{}", "kbs://[::1]:1/{}", "h/{}", "kbs+x:///{}", "kbs:///{}?a"]),
    st.sampled_from(["v1", "v2"]),
)
def test_provider_unwraps_any_options_that_it_wrapped(
    folder: Path, options: bytes, algorithm: str, key_id: str, version: PacketVersion
) -> None:
    parameters = f"keypath=kek::keyid={key_id.format(PATH)}::algorithm={algorithm}"
    packet = provider(folder, version).wrap(WrapRequest((parameters,), options)).packet
    assert b64encode(options)[:40] not in packet
    opened = provider(folder).unwrap(UnwrapRequest(("offline_fs",), packet))
    assert opened.private_options == options


@given(st.lists(any_text, max_size=3), st.binary(max_size=300) | private_options)
def test_provider_wraps_or_refuses_any_parameters(
    folder: Path, parameters: list[str], options: bytes
) -> None:
    try:
        provider(folder).wrap(WrapRequest(tuple(parameters), options))
    except CocoKpError as error:
        assert str(error).isprintable()  # noqa: PT017


@given(altered(PACKETS[:1]) | retyped(PACKETS[:1]))
def test_provider_opens_altered_gcm_packet_to_the_same_or_refuses(
    folder: Path, packet: bytes
) -> None:
    """Members that nobody reads may change; the kid may, if its path stays."""
    try:
        opened = provider(folder).unwrap(UnwrapRequest(("offline_fs",), packet))
    except CocoKpError:
        return
    assert opened.private_options == PRIVATE_OPTIONS


@given(altered(PACKETS[1:2]) | retyped(PACKETS[1:2]))
def test_provider_opens_altered_ctr_packet_to_valid_options_or_refuses(
    folder: Path, packet: bytes
) -> None:
    try:
        opened = provider(folder).unwrap(UnwrapRequest(("offline_fs",), packet))
    except CocoKpError:
        return
    assert json.loads(opened.private_options).keys() >= {"symkey", "digest", "cipheroptions"}
