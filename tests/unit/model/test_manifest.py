"""Manifests: exact bytes, nothing lost, nothing ambiguous."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coco_kp.errors import InputError
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import (
    MAX_MANIFEST,
    ImageIndex,
    ImageManifest,
    Platform,
    describe,
    parse_descriptor,
    parse_manifest,
    parse_platform,
)
from coco_kp.model.media_type import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
)
from tests.support.refusals import refusals

DIGEST = "sha256:" + "ab" * 32
PLUGIN = {
    "mediaType": "application/vnd.docker.plugin.v1+json",
    "digest": "sha256:" + "ab" * 32,
    "size": 7,
}
OTHER = "sha256:" + "cd" * 32


def entry(media_type: str = OCI_LAYER, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 7, **more}


def manifest(**more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": entry(OCI_CONFIG),
        "layers": [entry()],
        **more,
    }


def raw(document: object) -> bytes:
    return json.dumps(document).encode()


def parse_image(document: object) -> ImageManifest:
    parsed = parse_manifest(raw(document))
    assert isinstance(parsed, ImageManifest)
    return parsed


class TestParsing:
    def test_parse_manifest_reads_image(self) -> None:
        data = json.dumps(
            manifest(
                layers=[entry(annotations={"a": "b"}, urls=["https://h/x"])],
                annotations={"k": "v"},
                artifactType="application/x",
                subject=entry(OCI_MANIFEST),
            ),
            indent=3,
        ).encode()
        image = parse_manifest(data)
        assert isinstance(image, ImageManifest)
        assert image.raw == data
        assert image.digest == Digest.of(data)
        assert image.annotations == {"k": "v"}
        assert image.artifact_type == "application/x"
        assert image.subject is not None
        (layer,) = image.layers
        assert (layer.media_type, str(layer.digest), layer.size) == (OCI_LAYER, DIGEST, 7)
        assert (layer.annotations, layer.urls) == ({"a": "b"}, ("https://h/x",))
        assert image.descriptor().digest == Digest.of(data)
        assert image.descriptor().size == len(data)

    def test_parse_manifest_reads_index_with_platforms(self) -> None:
        platform = {"os": "linux", "architecture": "arm64", "variant": "v8", "os.version": "1"}
        index = parse_manifest(
            raw(
                {
                    "schemaVersion": 2,
                    "mediaType": OCI_INDEX,
                    "manifests": [entry(OCI_MANIFEST, platform=platform), entry(OCI_MANIFEST)],
                }
            )
        )
        assert isinstance(index, ImageIndex)
        assert [item.platform for item in index.manifests] == [
            Platform("linux", "arm64", "v8"),
            None,
        ]
        assert str(index.manifests[0].platform) == "linux/arm64/v8"

    @pytest.mark.parametrize(
        ("document", "claimed", "found"),
        [
            (manifest(), None, OCI_MANIFEST),
            (manifest(), OCI_MANIFEST, OCI_MANIFEST),
            (manifest(mediaType=None), None, OCI_MANIFEST),
            (manifest(mediaType=None), DOCKER_MANIFEST, DOCKER_MANIFEST),
            (manifest(mediaType="", config=entry(DOCKER_CONFIG)), None, DOCKER_MANIFEST),
            ({"schemaVersion": 2, "manifests": []}, None, OCI_INDEX),
            ({"schemaVersion": 2, "manifests": None}, DOCKER_LIST, DOCKER_LIST),
            (manifest(layers=None), None, OCI_MANIFEST),
            (manifest(layers=[entry(annotations=None, urls=None)]), None, OCI_MANIFEST),
        ],
    )
    def test_parse_manifest_determines_media_type(
        self, document: object, claimed: str | None, found: str
    ) -> None:
        assert parse_manifest(raw(document), claimed).media_type == found


class TestChanging:
    def test_replaced_image_keeps_everything_else(self) -> None:
        source = manifest(
            layers=[entry(zzz=[1, {"a": None}], annotations={"own": "kept"}), entry()],
            unknown={"deep": [True]},
            annotations={"k": "v"},
        )
        image = parse_image(source)
        first = image.layers[0].replaced(
            media_type=f"{OCI_LAYER}+encrypted",
            digest=parse_descriptor(entry(digest=OTHER), "x").digest,
            size=9,
            annotations={**image.layers[0].annotations, "new": "added"},
        )
        changed = image.replaced(layers=[first, image.layers[1]])
        expected = json.loads(raw(source))
        expected["layers"][0] |= {
            "mediaType": f"{OCI_LAYER}+encrypted",
            "digest": OTHER,
            "size": 9,
            "annotations": {"own": "kept", "new": "added"},
        }
        document = json.loads(changed.raw)
        assert document == expected
        assert list(document) == list(source)
        assert list(document["layers"][0]) == list(source["layers"][0])
        assert changed.layers[0] == first
        assert changed.digest == Digest.of(changed.raw)

    def test_replaced_does_not_change_the_source(self) -> None:
        image = parse_image(manifest(layers=[entry(annotations={"a": "b"}, urls=["u"])]))
        before = json.dumps(image.document)
        other = parse_descriptor(entry(digest=OTHER), "x").digest
        image.replaced(layers=[image.layers[0].replaced(digest=other, annotations={})])
        assert json.dumps(image.document) == before

    def test_replaced_descriptor_drops_embedded_data_and_urls_of_old_digest(self) -> None:
        layer = parse_descriptor(entry(data="c2VjcmV0", urls=["https://h/x"]), "x")
        assert layer.replaced(media_type="y").document["data"] == "c2VjcmV0"
        assert layer.replaced(digest=layer.digest).urls == ("https://h/x",)
        changed = layer.replaced(digest=parse_descriptor(entry(digest=OTHER), "x").digest)
        assert not {"data", "urls"} & changed.document.keys()
        assert changed.urls == ()

    def test_replaced_descriptor_without_annotations_has_no_annotations_member(self) -> None:
        layer = parse_descriptor(entry(annotations={"a": "b"}), "x")
        assert "annotations" not in layer.replaced(annotations={}).document
        assert layer.replaced(size=8).annotations == {"a": "b"}

    @pytest.mark.parametrize(
        ("platform", "expected"),
        [
            ({}, None),
            ({"os": "", "architecture": ""}, None),
            ({"architecture": "amd64"}, Platform("", "amd64")),
            ({"os": "linux", "architecture": None}, Platform("linux", "")),
        ],
    )
    def test_parse_manifest_takes_half_a_platform_for_what_it_is(
        self, platform: object, expected: Platform | None
    ) -> None:
        document = {"schemaVersion": 2, "manifests": [entry(OCI_MANIFEST, platform=platform)]}
        index = parse_manifest(raw(document))
        assert isinstance(index, ImageIndex)
        assert index.manifests[0].platform == expected
        assert expected is None or not expected.whole

    def test_replaced_index_keeps_platforms(self) -> None:
        platform = {"os": "linux", "architecture": "amd64", "features": ["x"]}
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [entry(OCI_MANIFEST, platform=platform)],
        }
        index = parse_manifest(raw(document))
        assert isinstance(index, ImageIndex)
        changed = index.replaced([index.manifests[0].replaced(size=99)])
        document["manifests"][0]["size"] = 99  # type: ignore[index]
        assert json.loads(changed.raw) == document


class TestToOci:
    @pytest.mark.parametrize(
        ("docker", "oci"),
        [
            (DOCKER_LAYER, OCI_LAYER),
            (f"{DOCKER_LAYER}.gzip", f"{OCI_LAYER}+gzip"),
            (f"{DOCKER_LAYER}.zstd", f"{OCI_LAYER}+zstd"),
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            ),
        ],
    )
    def test_to_oci_changes_media_types_and_keeps_blobs(self, docker: str, oci: str) -> None:
        source = manifest(
            mediaType=DOCKER_MANIFEST,
            config=entry(DOCKER_CONFIG),
            layers=[entry(docker, urls=["u"])],
        )
        converted = parse_image(source).to_oci()
        assert converted.media_type == OCI_MANIFEST
        assert json.loads(converted.raw) == manifest(layers=[entry(oci, urls=["u"])])

    def test_to_oci_returns_oci_image_unchanged(self) -> None:
        data = json.dumps(manifest(), indent=1).encode()
        image = parse_manifest(data)
        assert image.to_oci() is image

    def test_to_oci_turns_docker_list_into_index(self) -> None:
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_LIST,
            "manifests": [entry(OCI_MANIFEST)],
        }
        converted = parse_manifest(raw(document)).to_oci()
        assert json.loads(converted.raw) == {**document, "mediaType": OCI_INDEX}


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm64/v8"])
def test_parse_platform_reads_os_architecture_and_variant(text: str) -> None:
    assert str(parse_platform(text)) == text


test_parse_platform_refuses_malformed_text = refusals(
    parse_platform,
    {"not a platform": ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux//v8"]},
)

test_parse_manifest_refuses_malformed_document = refusals(
    lambda document: parse_manifest(raw(document)),
    {
        "ambiguous": [manifest(manifests=[]), manifest(mediaType=OCI_INDEX, manifests=[])],
        "schema 1": [{"schemaVersion": 1, "fsLayers": []}],
        "not 2": [manifest(schemaVersion=3)],
        "not an integer": [manifest(schemaVersion="2"), manifest(schemaVersion=True)],
        "not an image": [manifest(mediaType="application/json")],
        "not a string": [manifest(mediaType=5)],
        "'layers' of the manifest is not an array": [manifest(layers={})],
        "has no 'manifests'": [{"schemaVersion": 2, "mediaType": OCI_INDEX}],
        "no 'layers'": [{"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entry()}],
        "config is not an object": [manifest(config=None)],
        "layer 0 of the manifest is not an object": [manifest(layers=[None])],
        "layer 1 of the manifest has a size of -1": [manifest(layers=[entry(), entry(size=-1)])],
        "'size'": [manifest(layers=[entry(size=size)]) for size in (1.5, "7", True)],
        "size of": [manifest(layers=[entry(size=2**63)])],
        "digest": [manifest(layers=[entry(digest="sha256:ab")])],
        "'digest'": [manifest(layers=[entry(digest=None)])],
        "'annotations' of layer 0": [
            *(
                manifest(layers=[entry(annotations={"a": 1})]),
                manifest(layers=[entry(annotations=[])]),
            )
        ],
        "'urls'": [manifest(layers=[entry(urls=urls)]) for urls in ("x", [1])],
        "'platform'": [
            manifest(layers=[entry(platform=platform)]) for platform in ({"os": 1}, "linux/amd64")
        ],
        "'annotations' of the manifest": [manifest(annotations={"a": None})],
        "'artifactType'": [manifest(artifactType=1)],
        "subject": [manifest(subject=1)],
        "not a JSON object": [[]],
    },
)

test_parse_manifest_refuses_data_that_is_not_json = refusals(
    parse_manifest,
    {
        "is not valid JSON": [b"", b"{", b"\xff{}"],
        "has the member 'a' twice": [b'{"a":1,"a":1}'],
        f"more than the {MAX_MANIFEST} allowed": [b" " * MAX_MANIFEST + b"{}"],
    },
)


def test_parse_manifest_refuses_other_media_type_than_what_points_to_it_says() -> None:
    with pytest.raises(InputError, match="what points to it says"):
        parse_manifest(raw(manifest()), DOCKER_MANIFEST)


test_parse_manifest_refuses_schema_1_with_hint = refusals(
    lambda claimed: parse_manifest(raw({"name": "x"}), claimed),
    {"schema 1": ["application/vnd.docker.distribution.manifest.v1+prettyjws"]},
    hint_has="push it anew",
)

test_parse_manifest_refuses_platform_of_other_characters = refusals(
    lambda platform: parse_manifest(
        raw({"schemaVersion": 2, "manifests": [entry(OCI_MANIFEST, platform=platform)]}), OCI_INDEX
    ),
    {
        "is not a platform": [
            {"os": "linux", "architecture": "arm64", name: word}
            for name in ("os", "architecture", "variant")
            for word in ("\x1b[2J", "Linux", "a/b", "l\u202e")
        ]
    },
)

test_to_oci_refuses_media_type_without_oci_equivalent = refusals(
    lambda members: parse_image(
        manifest(mediaType=DOCKER_MANIFEST, config=entry(DOCKER_CONFIG)) | members
    ).to_oci(),
    {"no equivalent in OCI": [{"config": PLUGIN, "layers": []}, {"layers": [PLUGIN]}]},
)


def test_describe_returns_descriptor_with_size_and_digest() -> None:
    described = describe("x/y", b"data")
    assert (described.media_type, described.size) == ("x/y", 4)
    assert described.digest.matches(b"data")
