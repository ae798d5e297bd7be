from __future__ import annotations

import ast
from pathlib import Path

import pytest

from coco_kp import kbc
from coco_kp.errors import KekError
from coco_kp.kbc import sample
from coco_kp.model.kbc_spec import KBC_NAMES
from coco_kp.model.packet import parse_packet
from tests.vectors import load_vectors

PACKETS = {vector["name"]: vector for vector in load_vectors("packets")["good"]}


@pytest.mark.parametrize("name", KBC_NAMES)
def test_every_kbc_name_is_a_module_that_makes_it(name: str) -> None:
    tree = ast.parse((Path(kbc.__file__).parent / f"{name}.py").read_bytes())
    assert f"{name}_kbc" in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_sample_kbc_opens_packet_that_upstream_wrapped_with_sample_key() -> None:
    vector = PACKETS["sample_zero_iv"]
    packet = parse_packet(vector["packet"].encode())
    opened = sample.sample_kbc().unwrap(packet)
    assert opened == vector["optsdata"].encode()


def test_sample_kbc_ignores_kid() -> None:
    vector = PACKETS["sample_zero_iv"]
    text = vector["packet"].replace("default/test-key/1", "any/other/name")
    opened = sample.sample_kbc().unwrap(parse_packet(text.encode()))
    assert opened == vector["optsdata"].encode()


def test_sample_kbc_refuses_packet_wrapped_with_another_key() -> None:
    packet = parse_packet(PACKETS["gcm"]["packet"].encode())
    with pytest.raises(KekError, match="the key of kbs:///default/key/key_id1 does not open") as e:
        sample.sample_kbc().unwrap(packet)
    assert e.value.hint == "the image was encrypted with another key, or altered"
