"""Manifests: exact bytes, nothing lost, nothing ambiguous."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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

DIGEST = "sha256:" + "ab" * 32
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

    @pytest.mark.parametrize(
        ("document", "claimed", "words"),
        [
            (manifest(), DOCKER_MANIFEST, "what points to it says"),
            (manifest(manifests=[]), None, "ambiguous"),
            (manifest(mediaType=OCI_INDEX, manifests=[]), None, "ambiguous"),
            ({"schemaVersion": 1, "fsLayers": []}, None, "schema 1"),
            (manifest(schemaVersion=3), None, "not 2"),
            (manifest(schemaVersion="2"), None, "not an integer"),
            (manifest(schemaVersion=True), None, "not an integer"),
            (manifest(mediaType="application/json"), None, "not an image"),
            (manifest(mediaType=5), None, "not a string"),
            (manifest(layers={}), None, "'layers' of the manifest is not an array"),
            ({"schemaVersion": 2, "mediaType": OCI_INDEX}, None, "has no 'manifests'"),
            (
                {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entry()},
                None,
                "no 'layers'",
            ),
            (manifest(config=None), None, "config is not an object"),
            (manifest(layers=[None]), None, "layer 0 of the manifest is not an object"),
            (manifest(layers=[entry(), entry(size=-1)]), None, "layer 1 .* size of -1"),
            (manifest(layers=[entry(size=1.5)]), None, "'size'"),
            (manifest(layers=[entry(size="7")]), None, "'size'"),
            (manifest(layers=[entry(size=True)]), None, "'size'"),
            (manifest(layers=[entry(size=2**63)]), None, "size of"),
            (manifest(layers=[entry(digest="sha256:ab")]), None, "digest"),
            (manifest(layers=[entry(digest=None)]), None, "'digest'"),
            (manifest(layers=[entry(annotations={"a": 1})]), None, "'annotations' of layer 0"),
            (manifest(layers=[entry(annotations=[])]), None, "'annotations' of layer 0"),
            (manifest(layers=[entry(urls="x")]), None, "'urls'"),
            (manifest(layers=[entry(urls=[1])]), None, "'urls'"),
            (manifest(layers=[entry(platform={"os": 1})]), None, "'platform'"),
            (manifest(layers=[entry(platform="linux/amd64")]), None, "'platform'"),
            (manifest(annotations={"a": None}), None, "'annotations' of the manifest"),
            (manifest(artifactType=1), None, "'artifactType'"),
            (manifest(subject=1), None, "subject"),
            ([], None, "not a JSON object"),
        ],
    )
    def test_parse_manifest_refuses_malformed_document(
        self, document: object, claimed: str | None, words: str
    ) -> None:
        with pytest.raises(InputError, match=words):
            parse_manifest(raw(document), claimed)

    @pytest.mark.parametrize(
        "data", [b"", b"{", b"\xff{}", b'{"a":1,"a":1}', b" " * MAX_MANIFEST + b"{}"]
    )
    def test_parse_manifest_refuses_data_that_is_not_json(self, data: bytes) -> None:
        with pytest.raises(InputError):
            parse_manifest(data)

    def test_parse_manifest_refuses_schema_1_with_hint(self) -> None:
        claimed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
        with pytest.raises(InputError, match="schema 1") as caught:
            parse_manifest(raw({"name": "x"}), claimed)
        assert "push it anew" in caught.value.hint

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "schemaVersion",
                            "mediaType",
                            "config",
                            "layers",
                            "manifests",
                            "digest",
                            "size",
                            "annotations",
                            "urls",
                            "platform",
                            "os",
                            "architecture",
                            "subject",
                        ]
                    ),
                    inner,
                    max_size=6,
                )
            ),
        )
    )
    def test_parse_manifest_reads_or_refuses_any_document(self, document: object) -> None:
        if isinstance(document, dict):
            document["schemaVersion"] = 2
        try:
            parse_manifest(raw(document))
        except InputError:
            return


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

    @pytest.mark.parametrize("word", ["\x1b[2J", "Linux", "a/b", "l\u202e"])
    @pytest.mark.parametrize("name", ["os", "architecture", "variant"])
    def test_parse_manifest_refuses_platform_of_other_characters(
        self, name: str, word: str
    ) -> None:
        platform = {"os": "linux", "architecture": "arm64", name: word}
        document = {"schemaVersion": 2, "manifests": [entry(OCI_MANIFEST, platform=platform)]}
        with pytest.raises(InputError, match="is not a platform") as error:
            parse_manifest(json.dumps(document).encode(), OCI_INDEX)
        assert str(error.value).isprintable()

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

    @pytest.mark.parametrize("where", ["config", "layers"])
    def test_to_oci_refuses_media_type_without_oci_equivalent(self, where: str) -> None:
        plugin = entry("application/vnd.docker.plugin.v1+json")
        source = manifest(mediaType=DOCKER_MANIFEST, config=entry(DOCKER_CONFIG), layers=[])
        source[where] = plugin if where == "config" else [plugin]
        with pytest.raises(InputError, match="no equivalent in OCI"):
            parse_image(source).to_oci()


class TestPlatform:
    @pytest.mark.parametrize("text", ["linux/amd64", "linux/arm64/v8"])
    def test_parse_platform_reads_os_architecture_and_variant(self, text: str) -> None:
        assert str(parse_platform(text)) == text

    @pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux//v8"])
    def test_parse_platform_refuses_malformed_text(self, text: str) -> None:
        with pytest.raises(InputError, match="not a platform"):
            parse_platform(text)


def test_describe_returns_descriptor_with_size_and_digest() -> None:
    described = describe("x/y", b"data")
    assert (described.media_type, described.size) == ("x/y", 4)
    assert described.digest.matches(b"data")
