"""The stand-ins for upstream's scripts, with a real skopeo (docs/protocols.md 7)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from tests.support.image import Image
from tests.support.key import KEY_ID, Key
from tests.support.markdown import ROOT
from tests.support.provider import Provider

CONTRIB = ROOT / "contrib"


class Shell:
    """Runs a script of ``contrib/`` and sees to it that it leaves no temporary file."""

    def __init__(self, folder: Path, skopeo_program: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self.path = f"{Path(sys.executable).parent}:{skopeo_program.parent}:{os.environ['PATH']}"

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [CONTRIB / script, *arguments],
            cwd=self.folder,
            env={"PATH": self.path, "HOME": str(self.folder), "TMPDIR": str(self.temporary)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert list(self.temporary.iterdir()) == [], "something stayed behind"
        return done


@pytest.fixture
def shell(tmp_path: Path, skopeo_program: Path) -> Shell:
    return Shell(tmp_path / "shell", skopeo_program)


@pytest.mark.peer
def test_encrypt_sh_makes_image_that_the_key_opens(
    shell: Shell, image: Image, key: Key, provider: Provider, tmp_path: Path
) -> None:
    target = Image(tmp_path / "encrypted")
    arguments = ["-k", b64encode(key.raw).decode(), "-i", f"kbs:///{KEY_ID}"]
    done = shell.run("encrypt.sh", *arguments, "-s", image.reference, "-d", target.reference)
    assert done.returncode == 0, done.stderr
    assert {layer.packet["kid"] for layer in target.layers} == {f"kbs:///{KEY_ID}"}
    assert provider.decrypt(target, "offline_fs_kbc::null").layers == image.layers


@pytest.mark.peer
@pytest.mark.parametrize("kid", ["default/key/1", "kbs:///a/b", "kbs:///a/b/c,d"])
def test_encrypt_sh_refuses_malformed_key_id_before_skopeo_runs(
    shell: Shell, image: Image, key: Key, tmp_path: Path, kid: str
) -> None:
    target = Image(tmp_path / "encrypted")
    arguments = ["-k", b64encode(key.raw).decode(), "-i", kid]
    done = shell.run("encrypt.sh", *arguments, "-s", image.reference, "-d", target.reference)
    assert done.returncode == 1
    assert f"key ID '{kid}' cannot be used" in done.stderr
    assert not target.folder.exists()


@pytest.mark.peer
@pytest.mark.parametrize("key", ["", "AAAA", "not base64", b64encode(bytes(33)).decode()])
def test_encrypt_sh_refuses_malformed_key(shell: Shell, key: str) -> None:
    done = shell.run("encrypt.sh", "-k", key, "-i", "/a/b/c", "-s", "oci:a", "-d", "oci:b")
    assert (done.returncode, done.stderr) == (1, "key should be a b64-encoded 32 byte key\n")


@pytest.mark.peer
def test_encrypt_sh_prints_usage_as_upstream_does(shell: Shell) -> None:
    usage = (
        f"usage: {CONTRIB}/encrypt.sh "
        "[-k <b64-encoded key>] [-i <key id>] [-s <source>] [-d <destination>]\n"
    )
    done = shell.run("encrypt.sh", "-h")
    assert (done.returncode, done.stdout, done.stderr) == (0, usage, "")
    for arguments in ([], ["-x"], ["-k"], ["-i", "/a/b/c"], ["-i", "", "-s", "a", "-d", "b"]):
        done = shell.run("encrypt.sh", *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", usage)


@pytest.mark.peer
def test_generate_keys_sh_generates_ten_keys_and_exports_one(shell: Shell) -> None:
    done = shell.run("generate_keys.sh", "generate", "repo")
    keys = json.loads(done.stdout)
    assert set(keys) == {f"repo/key/key_id{number}" for number in range(1, 11)}
    (shell.folder / "keys.json").write_text(done.stdout)
    done = shell.run("generate_keys.sh", "export", "keys.json", "repo/key/key_id1", "out")
    assert (done.returncode, done.stdout) == (0, "")
    assert (shell.folder / "out").read_bytes() == b64decode(keys["repo/key/key_id1"])
    assert (shell.folder / "out").stat().st_mode & 0o777 == 0o600


@pytest.mark.peer
def test_generate_keys_sh_refuses_to_export_missing_key(shell: Shell) -> None:
    done = shell.run("generate_keys.sh", "generate")
    (shell.folder / "keys.json").write_text(done.stdout)
    done = shell.run("generate_keys.sh", "export", "keys.json", "repo/key/none", "out")
    assert done.returncode == 4
    assert not (shell.folder / "out").exists()
    assert shell.run("generate_keys.sh").returncode == 1
    assert shell.run("generate_keys.sh", "export", "keys.json").returncode == 1
