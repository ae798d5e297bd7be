"""``--register``: the KBS has the key before an image needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from tests.sim.http_server import Reply, Request
from tests.sim.kbs import ADMIN_TOKEN, PREFIX, SimulatedKbs, simulated_kbs
from tests.support import ocicrypt
from tests.support.command import KID, Command
from tests.support.image import Image
from tests.support.provider import served_address, serving

PATH = "default/key/1"
HIS = "keyid=kbs:///his/key/1"


@pytest.fixture
def kbs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimulatedKbs]:
    monkeypatch.setenv("COCO_KP_ADMIN_TOKEN", ADMIN_TOKEN)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with simulated_kbs() as running:
        yield running


def test_encrypt_registers_given_key(
    kbs: SimulatedKbs, plain: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    target = f"oci:{tmp_path}/e"
    register = ("--register", "--kbs", kbs.url)
    command("encrypt", plain.reference, target, "--keyid", KID, "--keypath", key, *register)
    assert kbs.resources == {PATH: key.read_bytes()}
    assert kbs.calls(f"POST resource/{PATH}") == 1, "one key for all layers"
    command("verify", target, "--keypath", key)


def test_encrypt_registers_generated_key(
    kbs: SimulatedKbs, plain: Image, tmp_path: Path, command: Command
) -> None:
    target, new = f"oci:{tmp_path}/e", tmp_path / "new"
    arguments = ("--keyid", KID, "--generate-key", new, "--register", "--kbs", kbs.url)
    command("encrypt", plain.reference, target, *arguments)
    assert kbs.resources == {PATH: new.read_bytes()}


def test_encrypt_registers_new_key_that_only_the_kbs_holds_under_a_fresh_key_id(
    kbs: SimulatedKbs, plain: Image, tmp_path: Path, command: Command
) -> None:
    target, exported = f"oci:{tmp_path}/e", tmp_path / "exported"
    register = ("--register", "--kbs", kbs.url)
    result = command("encrypt", plain.reference, target, *register, "--format", "json")
    ((path, raw),) = kbs.resources.items()
    assert result.json["key_ids"] == [f"kbs:///{path}"]
    exported.touch(0o600)
    exported.write_bytes(raw)
    command("verify", target, "--keypath", exported, "--target", "coco")


def test_encrypt_makes_no_image_when_kbs_refuses_registration(
    kbs: SimulatedKbs, plain: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    kbs.faults[f"POST resource/{PATH}"] = lambda _: Reply(401, {}, b"{}")
    target = tmp_path / "e"
    arguments = ("--keyid", KID, "--keypath", key, "--register", "--kbs", kbs.url)
    assert command("encrypt", plain.reference, f"oci:{target}", *arguments, ok=False).code == 6
    assert not target.exists()


def test_encrypt_registers_nothing_for_image_that_cannot_be_encrypted(
    kbs: SimulatedKbs, encrypted: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    target = tmp_path / "e"
    arguments = ("--keyid", KID, "--keypath", key, "--register", "--kbs", kbs.url)
    for more in ((), ("--dry-run", "--keep-encrypted")):
        command("encrypt", encrypted.reference, f"oci:{target}", *arguments, *more, ok=False)
        assert not kbs.requests


def test_rewrap_registers_given_key(
    kbs: SimulatedKbs,
    encrypted: Image,
    key: Path,
    make_key: Callable[[str], Path],
    command: Command,
) -> None:
    new = make_key("new")
    to = ("--to-keyid", "kbs:///default/key/2", "--to-keypath", new)
    register = ("--register", "--kbs", kbs.url)
    command("rewrap", encrypted.reference, "--keypath", key, *to, *register)
    assert kbs.resources == {"default/key/2": new.read_bytes()}
    command("verify", encrypted.reference, "--keypath", new)


def test_rewrap_leaves_image_unchanged_when_kbs_refuses_registration(
    kbs: SimulatedKbs,
    encrypted: Image,
    key: Path,
    make_key: Callable[[str], Path],
    command: Command,
) -> None:
    kbs.faults["POST resource/default/key/2"] = lambda _: Reply(401, {}, b"{}")
    before = encrypted.manifest
    to = ("--to-keyid", "kbs:///default/key/2", "--to-keypath", make_key("new"))
    register = (*to, "--register", "--kbs", kbs.url)
    outcome = command("rewrap", encrypted.reference, "--keypath", key, *register, ok=False)
    assert outcome.code == 6
    assert encrypted.manifest == before


def test_rewrap_with_nothing_to_register_says_so(
    kbs: SimulatedKbs, encrypted: Image, key: Path, command: Command
) -> None:
    arguments = (encrypted.reference, "--keypath", key, "--remove", "kbs:///his/key/1")
    outcome = command("rewrap", *arguments, "--register", "--kbs", kbs.url, ok=False)
    assert outcome.code == 2
    assert "no new key to register" in outcome.err


def test_rewrap_replaces_no_key_in_the_kbs_that_the_image_itself_needs(
    kbs: SimulatedKbs,
    encrypted: Image,
    key: Path,
    make_key: Callable[[str], Path],
    tmp_path: Path,
    command: Command,
) -> None:
    """No record on this machine, and yet everybody can see that the key ID is taken."""
    kbs.resources[PATH] = key.read_bytes()
    register = ("--register", "--kbs", kbs.url)
    to = ("--to-keyid", KID, "--to-keypath", make_key("new"))
    again = ("--remove", KID, "--add", f"keyid={KID},keypath={tmp_path}/new")
    opening = ("--keypath", key)
    for change in (to, again):
        for target in ((), (f"oci:{tmp_path}/x",)):
            arguments = (encrypted.reference, *target, *opening, *change)
            outcome = command("rewrap", *arguments, *register, ok=False)
            assert outcome.code == 7
            assert "would replace that in the KBS" in outcome.err
    assert not kbs.requests
    command("rewrap", encrypted.reference, *opening, *to)  # and then keys register --force
    to_same = ("--to-keyid", KID, "--to-keypath", tmp_path / "new")
    command("rewrap", encrypted.reference, "--keypath", tmp_path / "new", *to_same, *register)
    assert kbs.resources == {PATH: (tmp_path / "new").read_bytes()}


def test_encrypt_replaces_no_key_in_the_kbs_that_the_reused_image_needs(
    kbs: SimulatedKbs,
    plain: Image,
    encrypted: Image,
    key: Path,
    make_key: Callable[[str], Path],
    tmp_path: Path,
    command: Command,
) -> None:
    reuse = ("--reuse", encrypted.reference, "--reuse-keypath", key)
    own = ("--keyid", KID, "--keypath", make_key("new"))
    arguments = (plain.reference, f"oci:{tmp_path}/e", *reuse, *own)
    outcome = command("encrypt", *arguments, "--register", "--kbs", kbs.url, ok=False)
    assert outcome.code == 7
    assert not kbs.requests
    command("encrypt", *arguments)


def test_rewrap_that_would_register_a_key_twice_registers_it_not_once(
    kbs: SimulatedKbs,
    encrypted: Image,
    key: Path,
    make_key: Callable[[str], Path],
    command: Command,
) -> None:
    before, new = encrypted.manifest, make_key("new")
    to = ("--to-keyid", "kbs:///default/key/2", "--to-keypath", new)
    add = ("--add", f"keyid=kbs:///his/key/1,keypath={new}", "--register", "--kbs", kbs.url)
    arguments = ("rewrap", encrypted.reference, "--keypath", key, *to, *add)
    outcome = command(*arguments, ok=False)
    assert outcome.code == 7
    assert "would get a second name" in outcome.err
    assert not kbs.requests
    assert encrypted.manifest == before
    command(*arguments, "--allow-alias")
    assert set(kbs.resources) == {"default/key/2", "his/key/1"}


def test_keys_register_into_a_store_and_a_kbs_can_be_run_again(
    kbs: SimulatedKbs, key: Path, make_key: Callable[[str], Path], tmp_path: Path, command: Command
) -> None:
    """The KBS refused once, and the store then had the key."""
    into = ("--into", f"file:{tmp_path}/store", "--kbs", kbs.url)
    kbs.faults[f"POST resource/{PATH}"] = lambda _: Reply(401, {}, b"{}")
    assert command("keys", "register", key, KID, *into, ok=False).code == 6
    del kbs.faults[f"POST resource/{PATH}"]
    assert "already" in command("keys", "register", key, KID, *into).err
    assert kbs.resources == {PATH: key.read_bytes()} == {PATH: (tmp_path / "store").read_bytes()}
    other = command("keys", "register", make_key("other"), "/a/b/c", *into, ok=False)
    assert other.code == 7
    assert (tmp_path / "store").read_bytes() == key.read_bytes()


def test_keys_register_puts_no_key_into_a_store_that_the_kbs_must_not_get(
    kbs: SimulatedKbs, key: Path, make_key: Callable[[str], Path], tmp_path: Path, command: Command
) -> None:
    command("keys", "register", key, KID, "--kbs", kbs.url)
    into = ("--into", f"file:{tmp_path}/store", "--kbs", kbs.url)
    for file, kid in ((make_key("other"), KID), (key, "kbs:///his/key/1")):
        assert command("keys", "register", file, kid, *into, ok=False).code == 7
        assert not (tmp_path / "store").exists()


# Incidents.


def test_two_runners_with_one_key_id_cannot_replace_each_others_key(
    kbs: SimulatedKbs,
    plain: Image,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both exited 0, the second key replaced the first, and nobody could open the first image."""
    for runner in ("one", "two"):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / runner))
        arguments = ("--keyid", KID, "--register", "--kbs", kbs.url)
        outcome = command(
            "encrypt", plain.reference, f"oci:{tmp_path}/{runner}-e", *arguments, ok=False
        )
        assert outcome.code == 7
        assert "--generate-key FILE" in outcome.err
        assert not kbs.requests


def test_first_example_of_the_docs_survives_a_second_machine(
    kbs: SimulatedKbs,
    plain: Image,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for machine in ("one", "two"):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / machine))
        command(
            "encrypt",
            plain.reference,
            f"oci:{tmp_path}/{machine}-e",
            "--register",
            "--kbs",
            kbs.url,
        )
    assert len(kbs.resources) == 2


def test_rewrap_of_a_mistyped_image_registers_nothing(
    kbs: SimulatedKbs,
    encrypted: Image,
    key: Path,
    make_key: Callable[[str], Path],
    tmp_path: Path,
    command: Command,
) -> None:
    """It replaced the production key, and only then saw that there is no such image."""
    to = ("--to-keyid", KID, "--to-keypath", make_key("new"), "--register", "--kbs", kbs.url)
    for image, opening in ((f"oci:{tmp_path}/mistyped", key), (encrypted.reference, make_key("x"))):
        command("rewrap", image, "--keypath", opening, *to, ok=False)
        assert not kbs.requests
        assert not (tmp_path / "state").exists()


def test_caller_gets_no_other_teams_key_under_a_key_id_of_his_own(
    kbs: SimulatedKbs, key: Path, tmp_path: Path
) -> None:
    """The provider registered what a caller named, who then fetched another team's KEK."""
    with (
        serving(tmp_path, "--kbs", kbs.url) as server,
        ocicrypt.connection(served_address(server)) as channel,
    ):
        assert ocicrypt.wrap(channel, f"keypath={key}::{HIS}", ocicrypt.new_private_options())
    assert "the caller's own: it was not registered" in server.output()
    assert not _questions(kbs)
    assert not (tmp_path / "state").exists()


def test_callers_file_that_is_registered_gets_no_second_key_id(
    kbs: SimulatedKbs, key: Path, tmp_path: Path
) -> None:
    options = ocicrypt.new_private_options()
    flags = ("--kbs", kbs.url, "--register-callers-files")
    with (
        serving(tmp_path, *flags) as server,
        ocicrypt.connection(served_address(server)) as channel,
    ):
        ocicrypt.wrap(channel, f"keypath={key}::keyid={KID}", options)
        with pytest.raises(grpc.RpcError, match="would get a second name, 'kbs:///his/key/1'"):
            ocicrypt.wrap(channel, f"keypath={key}::{HIS}", options)
    assert kbs.resources == {PATH: key.read_bytes()}


@pytest.mark.parametrize("more", [(), ("--register-callers-files",)])
def test_file_and_key_id_of_different_keys_of_the_key_dir_are_refused(
    kbs: SimulatedKbs, make_key: Callable[[str], Path], tmp_path: Path, more: tuple[str, ...]
) -> None:
    """Whether or not the caller's key ID has a key there."""
    theirs = tmp_path / "keys" / "team" / "key" / "1"
    theirs.parent.mkdir(parents=True)
    make_key("theirs").rename(theirs)
    options = ocicrypt.new_private_options()
    flags = ("--kbs", kbs.url, "--key-dir", str(tmp_path / "keys"), *more)
    with (
        serving(tmp_path, *flags) as server,
        ocicrypt.connection(served_address(server)) as channel,
    ):
        for _ in range(2):
            with pytest.raises(grpc.RpcError, match="name different keys"):
                ocicrypt.wrap(channel, f"keypath=team/key/1::{HIS}", options)
            assert not _questions(kbs)
            his = tmp_path / "keys" / "his" / "key" / "1"
            his.parent.mkdir(parents=True, exist_ok=True)
            make_key("his").rename(his)
        assert ocicrypt.wrap(channel, "keypath=team/key/1::keyid=kbs:///team/key/1", options)
    assert set(kbs.resources) == ({"team/key/1"} if more else set())


def test_failed_encrypt_leaves_no_key_file_in_the_way_of_the_next_run(
    plain: Image, tmp_path: Path, command: Command
) -> None:
    new, target = tmp_path / "new", f"oci:{tmp_path}/e"
    arguments = ("--keyid", KID, "--generate-key", new)
    digest = plain.manifest["layers"][0]["digest"]
    blob = plain.folder / "blobs" / digest.replace(":", "/")
    content = blob.read_bytes()
    blob.write_bytes(content[:-1])
    assert command("encrypt", plain.reference, target, *arguments, ok=False).code in {3, 5}
    assert not new.exists()
    blob.write_bytes(content)
    command("encrypt", plain.reference, target, *arguments)
    command("verify", target, "--keypath", new)


def _questions(kbs: SimulatedKbs) -> list[Request]:
    """Return what arrived but the question of ``serve`` whether the KBS is there."""
    return [r for r in kbs.requests if (r.path, r.body) != (f"{PREFIX}auth", b"{}")]
