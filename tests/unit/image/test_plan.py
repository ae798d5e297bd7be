"""What is decided before a byte is written: above all, what may stay readable."""

from __future__ import annotations

import json
import tracemalloc
from base64 import b64encode

import pytest

from coco_kp.errors import CocoKpError, InputError, RefusedError
from coco_kp.image.base import BaseLayers
from coco_kp.image.plan import (
    EncryptionPlan,
    LayerAction,
    Rules,
    check_sizes,
    entries_to_read,
    plan_encryption,
)
from coco_kp.image.tree import DESCRIBED, ImageNode, IndexNode, images
from coco_kp.model.digest import parse_digest
from coco_kp.model.encoding import encode_base64
from coco_kp.model.layer_encryption import DEFAULT_SCHEME, MAX_PACKETS, LayerPacket
from coco_kp.model.layer_options import PublicOptions
from coco_kp.model.manifest import MAX_MANIFEST, Descriptor, Platform, parse_descriptor
from tests.support.nodes import GZIP, L, attestation, digest, image, listed

TAR = "application/vnd.oci.image.layer.v1.tar"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
ATTESTATION = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
SOCI = "application/vnd.amazon.soci.index.v2+json"
PACKETS = "org.opencontainers.image.enc.keys.provider.attestation-agent"
PUBLIC_OPTIONS = "org.opencontainers.image.enc.pubopts"
OPTIONS = encode_base64(PublicOptions(bytes(32)).to_json())


def actions(plan: EncryptionPlan) -> list[list[LayerAction]]:
    return [[layer.action for layer in image.layers] for image in plan.images]


def test_plan_encrypts_every_layer_of_every_image_by_default() -> None:
    tree = listed(image(L("a"), L("b")), image(L("a"), L("c"), platform="linux/arm64"))
    plan = plan_encryption(tree, Rules())
    assert actions(plan) == [[LayerAction.ENCRYPT] * 2] * 2
    assert len(plan.layers(LayerAction.ENCRYPT)) == 3, "the same layer is encrypted once"


@pytest.mark.parametrize(
    ("layers", "expected"), [((0,), {0}), ((-1,), {2}), ((0, -3, 2), {0, 2}), ((1,), {1})]
)
def test_plan_picks_layers_counted_from_either_end(
    layers: tuple[int, ...], expected: set[int]
) -> None:
    plan = plan_encryption(image(L("a"), L("b"), L("c")), Rules(layers=layers))
    picked = {layer.number for layer in plan.layers(LayerAction.ENCRYPT)}
    assert picked == expected
    assert {layer.number for layer in plan.layers(LayerAction.UNSELECTED)} == {0, 1, 2} - expected


@pytest.mark.parametrize("number", [3, -4, 7])
def test_plan_refuses_layer_number_out_of_range(number: int) -> None:
    with pytest.raises(InputError, match=f"no layer {number}"):
        plan_encryption(image(L("a"), L("b"), L("c")), Rules(layers=(0, number)))


def test_plan_requires_picked_layer_in_each_image() -> None:
    tree = listed(image(L("a"), L("b")), image(L("c"), platform="linux/arm64"))
    with pytest.raises(InputError, match="no layer 1 in linux/arm64"):
        plan_encryption(tree, Rules(layers=(1,)))


def test_plan_refuses_to_encrypt_only_one_of_two_identical_layers() -> None:
    with pytest.raises(RefusedError, match="layer 2 is the same"):
        plan_encryption(image(L("a"), L("b"), L("a")), Rules(layers=(0,)))


def test_plan_refuses_layer_encrypted_in_one_image_and_readable_in_another() -> None:
    tree = listed(image(L("a"), L("b")), image(L("b"), L("c"), platform="linux/arm64"))
    with pytest.raises(RefusedError, match="is the same"):
        plan_encryption(tree, Rules(layers=(0,)))


class TestPlatforms:
    tree = listed(
        image(L("a"), platform="linux/amd64"),
        image(L("b"), platform="linux/arm64/v8"),
        image(L("c"), platform="linux/arm/v7"),
        attestation(),
    )

    def chosen(self, *platforms: str) -> list[str]:
        wanted = tuple(Platform(*text.split("/")) for text in platforms)
        plan = plan_encryption(self.tree, Rules(platforms=wanted))
        return [str(image.image) for image in plan.images]

    def test_plan_for_one_platform_yields_single_image(self) -> None:
        plan = plan_encryption(self.tree, Rules(platforms=(Platform("linux", "amd64"),)))
        assert isinstance(plan.tree, ImageNode)
        assert str(plan.tree) == "linux/amd64"

    def test_plan_for_several_platforms_yields_index_of_those(self) -> None:
        assert self.chosen("linux/arm/v7", "linux/amd64") == ["linux/amd64", "linux/arm/v7"]

    def test_plan_for_platform_without_variant_matches_any_variant(self) -> None:
        assert self.chosen("linux/arm64") == ["linux/arm64/v8"]

    def test_plan_refuses_platform_with_another_variant(self) -> None:
        with pytest.raises(InputError, match="no platform linux/arm/v6") as error:
            self.chosen("linux/arm/v6")
        assert error.value.hint == "it has linux/amd64, linux/arm/v7, linux/arm64/v8"

    def test_plan_refuses_single_image_of_another_platform(self) -> None:
        with pytest.raises(InputError, match="no platform"):
            plan_encryption(image(L("a")), Rules(platforms=(Platform("linux", "arm64"),)))


class TestWhatDescribesThePlaintext:
    statement = attestation()
    soci = image(
        L("ztoc", "application/octet-stream"), config_type=SOCI, config=b"{}", artifactType=SOCI
    )

    def test_plan_leaves_out_attestation_by_default_and_names_it(self) -> None:
        plan = plan_encryption(listed(image(L("a")), self.statement), Rules())
        assert plan.attestations == ()
        assert isinstance(plan.tree, IndexNode)
        assert len(plan.tree.children) == 1
        (left,) = plan.left_out
        assert (left.digest, left.what) == (self.statement.manifest.digest, "attestation")

    def test_plan_keeps_attestation_on_request(self) -> None:
        plan = plan_encryption(listed(image(L("a")), self.statement), Rules(keep_attestations=True))
        assert plan.attestations == (self.statement,)
        assert plan.left_out == ()
        assert len(list(images(plan.tree))) == 2

    def test_plan_of_one_platform_keeps_only_attestation_of_its_image(self) -> None:
        amd64, arm64 = image(L("a")), image(L("b"), platform="linux/arm64")
        of_amd64, of_arm64 = (
            attestation(
                L(f"of {subject}", "application/vnd.in-toto+json"),
                entry={"annotations": {DESCRIBED: str(subject.manifest.digest)}},
            )
            for subject in (amd64, arm64)
        )
        rules = Rules(platforms=(Platform("linux", "arm64"),), keep_attestations=True)
        plan = plan_encryption(listed(amd64, of_amd64, arm64, of_arm64), rules)
        assert list(images(plan.tree)) == [arm64, of_arm64]
        assert [(left.digest, left.what) for left in plan.left_out] == [
            (amd64.manifest.digest, "image"),
            (of_amd64.manifest.digest, "attestation"),
        ]

    def test_plan_refuses_attestation_that_holds_layer_to_be_encrypted(self) -> None:
        tree = listed(image(L("a")), attestation(L("a", "application/vnd.in-toto+json")))
        with pytest.raises(RefusedError, match="layer 0 .* an attestation holds the same"):
            plan_encryption(tree, Rules(keep_attestations=True))

    def test_plan_refuses_to_both_keep_and_drop_attestations(self) -> None:
        with pytest.raises(ValueError, match="exclude each other"):
            plan_encryption(image(L("a")), Rules(keep_attestations=True, drop_attestations=True))

    @pytest.mark.parametrize("keep", [False, True])
    def test_plan_refuses_soci_index(self, keep: bool) -> None:
        with pytest.raises(RefusedError, match="is a SOCI index") as error:
            plan_encryption(listed(image(L("a")), self.soci), Rules(keep_attestations=keep))
        assert error.value.code == "soci-index"

    def test_plan_drops_soci_index_on_request_and_names_it(self) -> None:
        rules = Rules(drop_attestations=True)
        plan = plan_encryption(listed(image(L("a")), self.soci), rules)
        assert [left.what for left in plan.left_out] == ["SOCI index"]
        assert len(list(images(plan.tree))) == 1

    @pytest.mark.parametrize("media_type", [TAR, GZIP, FOREIGN])
    def test_plan_distrusts_attestation_mark_on_image_with_files(self, media_type: str) -> None:
        """A mark in an index must not be a way to leave an image readable."""
        marked = image(L("files", media_type), entry=ATTESTATION)
        attached = image(
            L("more"),
            platform="linux/arm64",
            subject=L("other", "application/vnd.oci.image.manifest.v1+json").document(),
        )
        plan = plan_encryption(listed(marked, attached), Rules())
        assert plan.attestations == ()
        assert len(plan.images) == 2


def entry(platform: str | None, *features: str) -> Descriptor:
    found = image(L("a"), platform=platform).entry
    assert found
    platform_ = found.document.get("platform")
    if features and isinstance(platform_, dict):
        platform_["os.features"] = list(features)
    return parse_descriptor(found.document, "entry")


class TestEntriesToRead:
    """Which manifests of a list are asked for: public registries count them."""

    entries = (
        entry("linux/amd64"),
        entry("linux/amd64", "nydus.remoteimage.v1"),
        entry("linux/arm64"),
        entry("unknown/unknown"),
        entry(None),
        entry("windows/amd64", "win32k"),
        entry("/amd64"),
    )

    @pytest.mark.parametrize(
        ("rules", "expected"),
        [
            (Rules(), {0, 1, 2, 3, 4, 5, 6}),
            (Rules(platforms=(Platform("linux", "amd64"),)), {0, 4, 6}),
            (Rules(platforms=(Platform("windows", "amd64"),)), {4, 5, 6}),
            (Rules(platforms=(Platform("linux", "arm64"),), keep_attestations=True), {2, 3, 4, 6}),
        ],
        ids=["all", "without features", "only with features", "with attestations"],
    )
    def test_entries_to_read_are_those_that_the_rules_may_want(
        self, rules: Rules, expected: set[int]
    ) -> None:
        needed = entries_to_read(self.entries, rules)
        assert {number for number, it_is in enumerate(needed) if it_is} == expected


RESTAMPED = {  # an A256GCM packet, without its tag
    "kid": "kbs:///default/key/1",
    "wrapped_data": b64encode(bytes(193)).decode(),
    "iv": b64encode(bytes(15) + b"\2").decode(),
    "wrap_type": "A256CTR",
}


class TestEncryptedLayers:
    encrypted = L("x", f"{GZIP}+encrypted", annotations={PACKETS: "e30=", PUBLIC_OPTIONS: OPTIONS})

    def test_plan_refuses_encrypted_layer_with_hint_to_rewrap(self) -> None:
        with pytest.raises(RefusedError, match="encrypted already") as error:
            plan_encryption(image(L("a"), self.encrypted), Rules())
        assert error.value.code == "encrypted-already"

    def test_plan_keeps_encrypted_layer_on_request(self) -> None:
        plan = plan_encryption(image(L("a"), self.encrypted), Rules(keep_encrypted=True))
        assert actions(plan) == [[LayerAction.ENCRYPT, LayerAction.KEEP]]

    @pytest.mark.parametrize(
        "annotations", [{}, {PACKETS: "e30="}, {PUBLIC_OPTIONS: OPTIONS}, {PACKETS: "?"}]
    )
    def test_plan_refuses_to_keep_layer_without_packets_and_options(
        self, annotations: dict[str, str]
    ) -> None:
        layer = L("x", f"{GZIP}+encrypted", annotations=annotations)
        with pytest.raises(InputError, match="layer 1 of linux/amd64 cannot stay as it is"):
            plan_encryption(image(L("a"), layer), Rules(keep_encrypted=True))

    @pytest.mark.parametrize("packet", [RESTAMPED, {"wrap_type": "A256GCM"}])
    def test_plan_refuses_to_keep_layer_with_packet_that_is_read_nowhere(
        self, packet: dict[str, str]
    ) -> None:
        packets = b64encode(json.dumps(packet).encode()).decode()
        annotations = {PACKETS: packets, PUBLIC_OPTIONS: OPTIONS}
        layer = L("x", f"{GZIP}+encrypted", annotations=annotations)
        with pytest.raises(InputError, match="layer 1 of linux/amd64 cannot stay as it is"):
            plan_encryption(image(L("a"), layer), Rules(keep_encrypted=True))

    def test_plan_refuses_to_leave_content_of_kept_layer_readable(self) -> None:
        annotations = {PACKETS: "e30=", PUBLIC_OPTIONS: OPTIONS}
        kept = L("x", f"{GZIP}+encrypted", content="files", annotations=annotations)
        mixed = image(kept, L("a"), L("b", content="files"))
        with pytest.raises(RefusedError, match="layer 2 is the same and would stay readable"):
            plan_encryption(mixed, Rules(keep_encrypted=True, layers=(1,)))

    def test_plan_accepts_image_with_encrypted_layers_only(self) -> None:
        plan = plan_encryption(image(self.encrypted), Rules(keep_encrypted=True))
        assert actions(plan) == [[LayerAction.KEEP]]

    def test_plan_refuses_plain_media_type_with_wrapped_keys(self) -> None:
        damaged = L("x", annotations={PACKETS: "e30="})
        with pytest.raises(InputError, match="has wrapped keys"):
            plan_encryption(image(damaged), Rules())


class TestForeignLayers:
    @pytest.mark.parametrize(
        "foreign",
        [L("w", kind, urls=("https://example.com/layer",)) for kind in (FOREIGN, GZIP)],
    )
    def test_plan_refuses_foreign_layer_unless_allowed(self, foreign: L) -> None:
        with pytest.raises(RefusedError, match="layer 0 of linux/amd64 is foreign"):
            plan_encryption(image(foreign, L("a")), Rules())
        plan = plan_encryption(image(foreign, L("a")), Rules(allow_foreign=True))
        assert actions(plan) == [[LayerAction.FOREIGN, LayerAction.ENCRYPT]]

    def test_plan_encrypts_nondistributable_layer_that_lies_in_the_image(self) -> None:
        plan = plan_encryption(image(L("w", FOREIGN), L("a")), Rules())
        assert actions(plan) == [[LayerAction.ENCRYPT] * 2]


class TestBase:
    def plan(
        self, subject: ImageNode, base: BaseLayers, layers: tuple[int, ...] | None = None
    ) -> EncryptionPlan:
        return plan_encryption(subject, Rules(layers=layers), base)

    def test_plan_leaves_layers_of_base_readable(self) -> None:
        base = BaseLayers((image(L("base"), platform="linux/arm64"),))
        plan = self.plan(image(L("base"), L("mine")), base)
        assert actions(plan) == [[LayerAction.BASE, LayerAction.ENCRYPT]]
        (layer,) = plan.layers(LayerAction.BASE)
        assert layer.base is not None
        assert not layer.base.claimed

    def test_plan_asks_for_proof_of_base_layer_compressed_differently(self) -> None:
        """Configs say so, and each of the two could lie."""
        base = BaseLayers((image(L("one gzip", content="files")),))
        plan = self.plan(image(L("another gzip", content="files"), L("mine")), base)
        assert actions(plan) == [[LayerAction.BASE, LayerAction.ENCRYPT]]
        (layer,) = plan.layers(LayerAction.BASE)
        assert layer.base is not None
        assert (layer.base.content, layer.base.claimed) == (layer.diff_id, True)

    def test_plan_asks_for_proof_of_base_layer_whose_digest_is_published_as_diff_id(self) -> None:
        base = BaseLayers((image(L("base", TAR)),))
        (layer,) = self.plan(image(L("base", TAR), L("mine")), base).layers(LayerAction.BASE)
        assert layer.base is not None
        assert layer.base.claimed

    def test_plan_encrypts_base_layer_that_is_not_among_the_first(self) -> None:
        base = BaseLayers((image(L("one"), L("two")),))
        plan = self.plan(image(L("one"), L("mine"), L("two"), L("one")), base)
        assert actions(plan) == [[LayerAction.BASE, *[LayerAction.ENCRYPT] * 3]]
        base = BaseLayers((image(L("one"), L("two"), L("three")),))
        plan = self.plan(image(L("one"), L("mine"), L("three")), base)
        assert actions(plan) == [[LayerAction.BASE, *[LayerAction.ENCRYPT] * 2]]

    def test_plan_does_not_take_layer_that_base_has_encrypted_for_public(self) -> None:
        """Its config names the content, as that of every encrypted image does."""
        hidden = L("hidden", f"{GZIP}+encrypted", content="mine", annotations={PACKETS: "e30="})
        with pytest.raises(InputError, match="shares no layer"):
            self.plan(image(L("mine", content="mine")), BaseLayers((image(hidden),)))

    def test_plan_does_not_take_layer_that_lies_elsewhere_for_the_base_s(self) -> None:
        """There nobody reads it, to compare it with what the base is to prove."""
        elsewhere = L("base", TAR, urls=("https://example.com/layer",))
        with pytest.raises(RefusedError, match="layer 0 of linux/amd64 is foreign"):
            self.plan(image(elsewhere, L("mine")), BaseLayers((image(L("base", TAR)),)))
        with pytest.raises(InputError, match="shares no layer"):
            self.plan(image(L("base", TAR), L("mine")), BaseLayers((image(elsewhere),)))

    def test_plan_refuses_base_that_shares_no_layer(self) -> None:
        with pytest.raises(InputError, match="shares no layer"):
            self.plan(image(L("mine")), BaseLayers((image(L("base")),)))

    def test_plan_refuses_base_that_has_every_layer(self) -> None:
        with pytest.raises(RefusedError, match="no layer to encrypt"):
            self.plan(image(L("base")), BaseLayers((image(L("base")),)))

    def test_plan_refuses_base_together_with_picked_layers(self) -> None:
        with pytest.raises(ValueError, match="exclude each other"):
            self.plan(image(L("base")), BaseLayers((image(L("base")),)), layers=(0,))


class TestMediaTypes:
    def test_plan_turns_docker_layers_into_oci_layers(self) -> None:
        docker = "application/vnd.docker.image.rootfs.diff.tar.gzip"
        plan = plan_encryption(image(L("a", docker), docker=True), Rules())
        assert [layer.media_type for layer in plan.layers(LayerAction.ENCRYPT)] == [GZIP]

    def test_plan_transcodes_zstd_to_gzip_unless_told_otherwise(self) -> None:
        zstd = image(L("a", f"{TAR}+zstd"))
        (layer,) = plan_encryption(zstd, Rules()).layers(LayerAction.ENCRYPT)
        assert layer.transcode
        assert layer.media_type == GZIP
        (layer,) = plan_encryption(zstd, Rules(zstd="keep")).layers(LayerAction.ENCRYPT)
        assert not layer.transcode
        with pytest.raises(RefusedError, match="zstd"):
            plan_encryption(zstd, Rules(zstd="refuse"))

    @pytest.mark.parametrize(
        "media_type",
        [
            "application/vnd.wasm.content.layer.v1+wasm",
            "application/octet-stream",
            f"{TAR}+gzip+zstd",
            f"{TAR}+xz",
            f"{TAR}+bzip2",
            f"{TAR}+br",
            f"{TAR}+gzip; charset=x",
            "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        ],
    )
    def test_plan_refuses_media_type_without_encrypted_form(self, media_type: str) -> None:
        with pytest.raises(RefusedError, match="cannot be encrypted"):
            plan_encryption(image(L("a"), L("b", media_type)), Rules())
        plan = plan_encryption(image(L("a"), L("b", media_type)), Rules(layers=(0,)))
        assert actions(plan) == [[LayerAction.ENCRYPT, LayerAction.UNSELECTED]]


def test_plan_refuses_to_encrypt_only_one_of_two_layers_with_the_same_content() -> None:
    with pytest.raises(RefusedError, match="layer 1 is the same"):
        plan_encryption(image(L("a", content="files"), L("b", content="files")), Rules(layers=(0,)))


@pytest.mark.parametrize("kind", ["rootfs.diff", "rootfs.foreign.diff"])
def test_plan_transcodes_zstd_of_docker(kind: str) -> None:
    zstd = f"application/vnd.docker.image.{kind}.tar.zstd"
    plan = plan_encryption(image(L("a", zstd), docker=True), Rules())
    (layer,) = plan.layers(LayerAction.ENCRYPT)
    assert layer.transcode
    assert layer.media_type.endswith(".tar+gzip")


class TestReuse:
    def test_plan_reuses_layer_that_destination_has_encrypted(self) -> None:
        there = [parse_digest(digest("same"))]
        plan = plan_encryption(image(L("same"), L("new")), Rules(), None, there)
        assert actions(plan) == [[LayerAction.REUSE, LayerAction.ENCRYPT]]

    def test_plan_does_not_reuse_layer_to_be_transcoded(self) -> None:
        there = [parse_digest(digest("same"))]
        zstd = image(L("same", f"{TAR}+zstd"))
        assert actions(plan_encryption(zstd, Rules(), None, there)) == [[LayerAction.ENCRYPT]]
        kept = plan_encryption(zstd, Rules(zstd="keep"), None, there)
        assert actions(kept) == [[LayerAction.REUSE]]


@pytest.mark.parametrize("tree", [image(), listed(), listed(attestation())], ids=["0", "1", "2"])
def test_plan_refuses_image_with_nothing_to_encrypt(tree: ImageNode | IndexNode) -> None:
    with pytest.raises(CocoKpError) as error:
        plan_encryption(tree, Rules())
    assert error.value.exit_code == 7


def test_check_sizes_refuses_what_recipients_make_too_large() -> None:
    """Each layer has a packet for each recipient."""
    room = MAX_MANIFEST - 20_000
    tree = image(*map(L, "abcdefgh"), annotations={"org.example.long": "x" * room})
    plan = plan_encryption(tree, Rules())
    packet = LayerPacket(DEFAULT_SCHEME, bytes(250))
    check_sizes(plan, {"sha256": [packet]})
    with pytest.raises(InputError, match="manifest of linux/amd64 would have over 4194304 bytes"):
        check_sizes(plan, {"sha256": [packet] * 10})
    left = plan_encryption(tree, Rules(layers=(0,)))
    check_sizes(left, {"sha256": [packet] * 10})


def test_check_sizes_measures_image_of_many_layers_in_little_memory() -> None:
    """Of each layer it held all packets, for such an image a gigabyte."""
    plan = plan_encryption(image(*(L(str(number)) for number in range(5_000))), Rules())
    packets = [LayerPacket(DEFAULT_SCHEME, bytes(250))] * MAX_PACKETS
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="would have over"):
            check_sizes(plan, {"sha256": packets})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
