"""``coco-kp inspect`` and ``verify``: what an image is, and whether it is as it should be."""

from __future__ import annotations

import json
import shutil
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.altered import altered, packet, public_options, unscheme
from tests.support.command import KID, Command
from tests.support.documents import Document
from tests.support.image import ENCRYPTED, PACKETS, Image
from tests.support.schema import check_schema


def inspected(command: Command, image: Image) -> list[dict[str, Any]]:
    (found,) = command("inspect", image.reference, "--format", "json").json["images"]
    layers: list[dict[str, Any]] = found["layers"]
    return layers


def messages(layer: dict[str, Any]) -> str:
    return "; ".join(finding["message"] for finding in layer["findings"])


class TestInspect:
    def test_inspect_shows_each_layer(self, encrypted: Image, command: Command) -> None:
        lines = command("inspect", encrypted.reference).out.splitlines()
        assert lines[0].startswith(f"{encrypted.reference} sha256:")
        assert " ".join(lines[1].split()) == "PLATFORM LAYER SIZE CIPHER KEY ID WRAP DIGEST"
        assert len(lines) == 2 + 4
        assert all("AES_256_CTR_HMAC_SHA256" in line and KID in line for line in lines[2:])

    def test_inspect_reads_manifests_only(self, encrypted: Image, command: Command) -> None:
        kept = {encrypted.manifest["config"]["digest"]}
        expected = command("inspect", encrypted.reference).out
        for layer in encrypted.manifest["layers"]:
            kept.add(layer["digest"])
        for digest in kept:
            (encrypted.folder / "blobs/sha256" / digest[7:]).unlink()
        assert command("inspect", encrypted.reference).out == expected

    def test_inspect_json_matches_its_schema(self, encrypted: Image, command: Command) -> None:
        schema = command("schema", "inspect").json
        document = command("inspect", encrypted.reference, "--format", "json").json
        check_schema(document, schema)

    def test_inspect_shows_recipients_of_other_tools(
        self, encrypted: Image, tmp_path: Path, command: Command
    ) -> None:
        kms = {"version": "0.1.0", "kid": "arn:1", "wrapped_data": "eA==", "provider": "aws"}

        def change(manifest: Document) -> None:
            manifest["layers"][0]["annotations"] |= {
                "org.opencontainers.image.enc.keys.jwe": "eA==",
                "org.opencontainers.image.enc.keys.provider.cloud": b64encode(
                    json.dumps(kms).encode()
                ).decode(),
            }

        layer, *_ = inspected(command, altered(encrypted, tmp_path / "altered", change))
        assert [(r["scheme"], r["provider"], r["kid"]) for r in layer["recipients"]] == [
            ("provider.attestation-agent", "kbs", KID),
            ("jwe", None, None),
            ("provider.cloud", "aws", "arn:1"),
        ]
        assert layer["findings"] == []

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (unscheme, "not every guest finds a key by the key ID"),
            (
                lambda m: public_options(
                    m, 0, lambda d: d.update(cipheroptions={"nonce": "AAAAAAAAAAAAAAAAAAAAAA=="})
                ),
                "cipher options in clear",
            ),
            (
                lambda m: m["layers"][0]["annotations"].update({PACKETS: "e30="}),
                "has no 'wrap_type'",
            ),
            (lambda m: m["layers"][0]["annotations"].update({PACKETS: "!"}), "not base64"),
            (lambda m: m["layers"][0]["annotations"].update({PACKETS: ""}), "nobody's key"),
            (
                lambda m: m["layers"][0].update(
                    mediaType=m["layers"][0]["mediaType"].removesuffix(ENCRYPTED)
                ),
                "says that it is not encrypted",
            ),
        ],
    )
    def test_inspect_reports_oddities_as_findings(
        self,
        encrypted: Image,
        tmp_path: Path,
        command: Command,
        change: Callable[[Document], None],
        words: str,
    ) -> None:
        image = altered(encrypted, tmp_path / "altered", change)
        layer, *_ = inspected(command, image)
        assert words in messages(layer)
        assert (
            f"finding: layer 0 of -: {layer['findings'][0]['message']}"
            in command("inspect", image.reference).out
        )

    def test_inspect_and_verify_print_no_control_character_of_image(
        self, encrypted: Image, tmp_path: Path, command: Command
    ) -> None:
        def change(manifest: Document) -> None:
            packet(manifest, 0, lambda document: document.update(kid="\x1b[2Jkbs"))
            manifest["layers"][1]["mediaType"] += "\x1b[2J"

        image = altered(encrypted, tmp_path / "altered", change)
        assert "\x1b" not in command("inspect", image.reference).out
        verified = command("verify", image.reference, "--target", "coco", ok=False)
        assert "\x1b" not in verified.out + verified.err


class TestVerify:
    def test_verify_json_names_what_was_checked(
        self, encrypted: Image, key: Path, command: Command
    ) -> None:
        report = command("verify", encrypted.reference, "--keypath", key, "--format", "json").json
        assert report["verified"]
        assert report["with_key"]
        for layer in report["layers"]:
            assert layer["checked"] == ["packet", "digest", "hmac", "plain digest", "diff_id"]

    def test_verify_without_key_says_that_no_packet_was_opened(
        self, encrypted: Image, command: Command
    ) -> None:
        out = command("verify", encrypted.reference).out
        assert out.splitlines()[-1].endswith(
            "verified, checked without a key: no packet was opened"
        )

    def test_verify_without_key_detects_damaged_layer(
        self, encrypted: Image, command: Command
    ) -> None:
        path = max(
            (encrypted.folder / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size
        )
        *start, last = path.read_bytes()
        path.write_bytes(bytes([*start, last ^ 1]))
        assert command("verify", encrypted.reference, ok=False).code == 5

    def test_verify_accepts_plain_layers_only_when_each_is_allowed(
        self, plain: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        encrypted = f"oci:{tmp_path}/e"
        arguments = ("--keyid", KID, "--keypath", key, "--layer", "2")
        command("encrypt", plain.reference, encrypted, *arguments)
        allowed = ("--allow-layer", "0", "--allow-layer", "1")
        opening = ("--keypath", key)
        assert command("verify", encrypted, *opening, *allowed, ok=False).code == 7
        command("verify", encrypted, *opening, *allowed, "--allow-layer", "-1")

    def test_verify_refuses_kid_that_no_guest_reads(
        self, encrypted: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        image = altered(encrypted, tmp_path / "altered", unscheme)
        outcome = command("verify", image.reference, "--keypath", key, ok=False)
        assert outcome.code == 3
        assert "coco-kp rewrap mends it" in outcome.err

    def test_verify_target_coco_reports_what_guests_refuse(
        self, encrypted: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        def zstd(manifest: Document) -> None:
            for layer in manifest["layers"]:
                layer["mediaType"] = layer["mediaType"].replace("+gzip", "+zstd")

        image = altered(encrypted, tmp_path / "altered", zstd)
        outcome = command("verify", image.reference, "--target", "coco", ok=False)
        assert outcome.code == 3
        assert "guests cannot read encrypted layers of type" in outcome.err
        command("verify", image.reference)  # without a target it is an image like any other
        command("verify", encrypted.reference, "--target", "coco", "--keypath", key)

    def test_verify_exits_with_code_of_gravest_finding(
        self, plain: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        encrypted = Image(tmp_path / "e")
        arguments = ("--keyid", KID, "--keypath", key, "--layer", "2")
        command("encrypt", plain.reference, encrypted.reference, *arguments)

        def break_hmac(manifest: Document) -> None:
            hmac = b64encode(bytes(32)).decode()
            public_options(manifest, 2, lambda document: document.update(hmac=hmac))

        image = altered(encrypted, tmp_path / "altered", break_hmac)
        outcome = command("verify", image.reference, "--keypath", key, ok=False)
        assert outcome.code == 7
        assert "HMAC" in outcome.out
        allowed = [word for n in (0, 1, 3) for word in ("--allow-layer", n)]
        outcome = command("verify", image.reference, "--keypath", key, *allowed, ok=False)
        assert outcome.code == 5

    def test_verify_writes_nothing(self, encrypted: Image, key: Path, command: Command) -> None:
        shutil.copytree(encrypted.folder, encrypted.folder.with_name("before"))
        command("verify", encrypted.reference, "--keypath", key)
        for path in encrypted.folder.with_name("before").rglob("*"):
            there = encrypted.folder / path.relative_to(encrypted.folder.with_name("before"))
            assert path.is_dir() or there.read_bytes() == path.read_bytes()
