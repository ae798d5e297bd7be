"""Whatever an image claims, commands end with an answer: never with a bug, never with a hang."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coco_kp.cli.main import run
from coco_kp.image.facts import guest_findings, layer_facts
from coco_kp.model.manifest import parse_descriptor
from tests.support.altered import altered
from tests.support.command import Command
from tests.support.image import PACKETS, PUBLIC_OPTIONS, Image

BUG = 1
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
NAMES = st.sampled_from([PACKETS, PUBLIC_OPTIONS, "org.opencontainers.image.enc.keys.jwe"])
PACKET_MEMBERS = ["kid", "wrapped_data", "iv", "wrap_type", "version", "provider", "annotations"]


def base64_of(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return strategy.map(lambda value: b64encode(json.dumps(value).encode()).decode())


ANNOTATION = st.one_of(
    st.text(max_size=30),
    base64_of(JSON),
    base64_of(st.dictionaries(st.sampled_from(PACKET_MEMBERS), JSON | st.just("eA=="))),
    base64_of(st.dictionaries(st.sampled_from(["cipher", "hmac", "cipheroptions"]), JSON)),
)


@given(annotations=st.dictionaries(NAMES, ANNOTATION), suffix=st.sampled_from(["", "+encrypted"]))
def test_layer_facts_accept_any_annotations(annotations: dict[str, str], suffix: str) -> None:
    document = {
        "mediaType": f"application/vnd.oci.image.layer.v1.tar{suffix}",
        "digest": f"sha256:{'0' * 64}",
        "size": 1,
        "annotations": annotations,
    }
    facts = layer_facts(0, parse_descriptor(document, "layer"))
    guest_findings(facts)
    assert facts.encrypted == bool(suffix)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_commands_refuse_altered_manifest_or_decrypt_it_correctly(
    encrypted: Image, key: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any member of the manifest becomes something else."""
    folder = tmp_path_factory.mktemp("fuzz")

    def change(manifest: dict[str, Any]) -> None:
        places = list(walk(manifest))
        container, name = data.draw(st.sampled_from(places))
        if data.draw(st.booleans()):
            del container[name]
        else:
            container[name] = data.draw(JSON | ANNOTATION)

    try:
        image = altered(encrypted, folder / "altered", change)
    except (AttributeError, TypeError):
        return
    for command in ("inspect", "verify", "decrypt"):
        arguments = [command, image.reference]
        arguments += [f"oci:{folder}/target"] if command == "decrypt" else []
        arguments += ["--keypath", str(key)] if command != "inspect" else []
        code = run(arguments)
        assert code != BUG
        if command == "decrypt" and code:
            assert not (folder / "target").exists()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(raw=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_encrypt_refuses_any_bytes_in_place_of_index_or_config(
    plain: Image, command: Command, tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    target = tmp_path_factory.mktemp("fuzz") / "target"
    index = plain.folder / "index.json"
    config = plain.folder / "blobs/sha256" / plain.manifest["config"]["digest"][7:]
    for path in (config, index):
        before = path.read_bytes()
        path.write_bytes(raw)
        outcome = command("encrypt", plain.reference, f"oci:{target}", "--sample", ok=False)
        path.write_bytes(before)
        assert outcome.code in {3, 5}
        assert not target.exists()


def walk(value: Any) -> Any:
    """Return every place in a document: a container, and a name or number in it."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, child in items:
        yield value, name
        if isinstance(child, dict | list):
            yield from walk(child)
