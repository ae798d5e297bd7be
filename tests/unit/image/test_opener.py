"""Who opens packets, and whose packets he leaves alone."""

from __future__ import annotations

import json
import stat
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from coco_kp.crypto import Kek
from coco_kp.deadline import within
from coco_kp.errors import CocoKpError, InputError, KekError, RemoteError
from coco_kp.image.foreign_provider import ForeignProvider, split_parameters
from coco_kp.image.opener import KbcOpener, open_one
from coco_kp.kbc.kbcs import Kbcs
from coco_kp.keyprovider.config import CmdProvider, GrpcProvider
from coco_kp.keys.wrapper import KekOpener, sample_recipient, wrap_options
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.kbc_spec import KbcSpec
from coco_kp.model.layer_encryption import LayerPacket
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.resource_uri import parse_key_id
from tests.support.kbcs import kbcs_with

OPTIONS = PrivateOptions(bytes(range(32)), bytes(16), f"sha256:{'0' * 64}")
SAMPLE = sample_recipient()
PACKET = SAMPLE.wrap(OPTIONS.to_json())
KMS = LayerPacket(PACKET.scheme, b'{"kid":"1","wrapped_data":"eA==","provider":"aws"}')

Script = Callable[[str], ForeignProvider]


def test_opener_opens_packet_by_kek_or_by_kbc() -> None:
    kbc = KbcOpener(KbcSpec("sample", ""), Kbcs())
    assert SAMPLE.open(PACKET) == kbc.open(PACKET) == OPTIONS


@pytest.mark.parametrize("scheme", ["jwe", "pgp"])
def test_opener_refuses_packet_of_another_scheme(scheme: str) -> None:
    for opener in (SAMPLE, KbcOpener(KbcSpec("sample", ""), Kbcs())):
        with pytest.raises(InputError, match="for another tool"):
            opener.open(LayerPacket(scheme, PACKET.data))


def test_opener_names_cloud_that_holds_the_key() -> None:
    with pytest.raises(KekError, match="held by 'aws'"):
        SAMPLE.open(KMS)


def test_open_one_lists_each_failure_once() -> None:
    one, two = KekOpener(Kek.generate(), "one"), KekOpener(Kek.generate(), "two")
    with pytest.raises(KekError) as error:
        open_one([PACKET, PACKET, KMS], [one, two])
    text = error.value.message
    assert text.count("one does not open") == text.count("two does not open") == 1
    assert "aws" in text
    with pytest.raises(CocoKpError, match="no key"):
        open_one([PACKET], [])


def test_open_one_says_of_several_packets_what_to_do_as_of_one(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"default/key/2": b64encode(bytes(32)).decode()}))
    keys.chmod(0o600)
    kbc = KbcOpener(KbcSpec("offline_fs", ""), kbcs_with(keys))
    for packets in ([PACKET], [PACKET, PACKET]):
        with pytest.raises(KekError) as error:
            open_one(packets, [kbc])
        assert error.value.code == "key-not-in-file"


class TestOptionsOfPacketsWithoutTag:
    """Whoever knows what an A256CTR packet holds can change it: only what is written counts."""

    more = b'{"more":1,' + OPTIONS.to_json()[1:]

    @pytest.mark.parametrize("algorithm", list(Algorithm))
    def test_opener_takes_no_other_member_from_them(
        self, algorithm: Algorithm, tmp_path: Path
    ) -> None:
        kek = Kek(bytes(range(32)))
        packet = wrap_options(kek, parse_key_id("/default/key/1"), algorithm, self.more)
        keys = tmp_path / "keys.json"
        keys.write_text(json.dumps({"default/key/1": b64encode(kek.raw()).decode()}))
        keys.chmod(0o600)
        kbc = KbcOpener(KbcSpec("offline_fs", ""), kbcs_with(keys))
        for opener in (KekOpener(kek), kbc, self.other_tool(tmp_path / "provider")):
            wrapped = LayerPacket("provider.other", packet.to_json())
            if algorithm is Algorithm.A256GCM:
                assert opener.open(wrapped) == OPTIONS
            else:
                with pytest.raises(KekError):
                    opener.open(wrapped)

    def other_tool(self, path: Path) -> ForeignProvider:
        """A provider that opens whatever it is given to these options."""
        answer = {"keyunwrapresults": {"optsdata": b64encode(self.more).decode()}}
        path.write_text(f"#!{sys.executable}\nprint('{json.dumps(answer)}')\n")
        path.chmod(stat.S_IRWXU)
        return ForeignProvider("other", "Enabled", CmdProvider(str(path), ()))


def test_split_parameters_splits_as_ocicrypt_does() -> None:
    assert split_parameters("name") == ("name", "Enabled")
    assert split_parameters("name:a=b::c=kbs:///d") == ("name", "a=b::c=kbs:///d")


class TestForeignProvider:
    @pytest.fixture
    def script(self, tmp_path: Path) -> Script:
        """Makes a provider of a program in Python."""

        def make(code: str) -> ForeignProvider:
            path = tmp_path / "provider"
            path.write_text(f"#!{sys.executable}\n{code}\n")
            path.chmod(stat.S_IRWXU)
            return ForeignProvider("other", "Enabled", CmdProvider(str(path), ()))

        return make

    def test_foreign_provider_refuses_packet_of_another_provider(self) -> None:
        provider = ForeignProvider("other", "Enabled", CmdProvider("/does/not/exist", ()))
        with pytest.raises(InputError, match="is not provider:other's"):
            provider.open(PACKET)

    @pytest.mark.parametrize(
        ("code", "error", "words"),
        [
            ("import sys; sys.exit('no such key')", RemoteError, "no such key"),
            ("print('{}')", RemoteError, "gave no packet"),
            ("print('[]')", InputError, "answer"),
            ("print('{\"keywrapresults\": null}')", RemoteError, "gave no packet"),
            ("print('x' * 9_000_000)", InputError, "more than"),
        ],
    )
    def test_foreign_provider_reports_answer_without_packet(
        self, script: Script, code: str, error: type[CocoKpError], words: str
    ) -> None:
        with pytest.raises(error, match=words):
            script(code).wrap(OPTIONS.to_json())

    def test_foreign_provider_gives_up_when_command_never_answers(self, script: Script) -> None:
        with pytest.raises(RemoteError, match="did not answer"), within(0.3):
            script("import time; time.sleep(60)").wrap(OPTIONS.to_json())

    def test_foreign_provider_reports_provider_that_cannot_be_called(self) -> None:
        for door, words in (
            (CmdProvider("/does/not/exist", ()), "cannot be run"),
            (GrpcProvider("127.0.0.1:1"), "UNAVAILABLE"),
        ):
            with pytest.raises(RemoteError, match=words):
                ForeignProvider("other", "Enabled", door).wrap(OPTIONS.to_json())
