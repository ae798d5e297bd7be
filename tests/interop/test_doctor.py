"""``coco-kp doctor`` on machines that lack one thing or another."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.key import Key
from tests.support.provider import COCO_KP, our_config, served_address, serving


class Doctor:
    """Runs the command with a skopeo and a configuration, or without; gives its exit code."""

    def __init__(self, skopeo: Path | None, config: Path | None = None) -> None:
        path = [str(COCO_KP.parent), *([str(skopeo.parent)] if skopeo else []), "/usr/bin", "/bin"]
        self.env = {"PATH": ":".join(path), "HOME": "/nonexistent"}
        if config:
            self.env["OCICRYPT_KEYPROVIDER_CONFIG"] = str(config)
        self.checks: dict[str, dict[str, object]] = {}

    def run(self, *arguments: str) -> int:
        command = [str(COCO_KP), "doctor", "--format", "json", *arguments]
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stderr == ""
        self.checks = {check["check"]: check for check in json.loads(done.stdout)}
        return done.returncode

    def failed(self) -> list[str]:
        return [name for name, check in self.checks.items() if not check["ok"]]


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


@pytest.mark.peer
def test_all_is_well(skopeo_program: Path, key: Key, tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        address = served_address(server)
        doctor = Doctor(skopeo_program, our_config(tmp_path / "config", "--grpc", address))
        assert doctor.run("--parameters", key.parameters()) == 0
    assert doctor.failed() == []
    assert doctor.checks["provider"]["found"] == f"{address} SERVING"
    assert "built with key providers" in str(doctor.checks["skopeo"]["found"])
    assert "kbs:///default/key/key_id1" in str(doctor.checks["encryption parameters"]["found"])


@pytest.mark.peer
def test_no_provider_at_the_address(skopeo_program: Path, tmp_path: Path) -> None:
    config = our_config(tmp_path / "config", "--grpc", f"unix://{tmp_path}/socket")
    doctor = Doctor(skopeo_program, config)
    assert doctor.run() == 6
    assert doctor.failed() == ["provider"]
    assert doctor.checks["provider"]["hint"] == "start it: coco-kp serve"


@pytest.mark.peer
def test_the_command_of_the_configuration(skopeo_program: Path, tmp_path: Path) -> None:
    doctor = Doctor(skopeo_program, our_config(tmp_path / "config", "--cmd"))
    assert doctor.run() == 0
    other = tmp_path / "other"
    other.write_text(
        json.dumps({"key-providers": {"attestation-agent": {"cmd": {"path": "/none"}}}})
    )
    doctor = Doctor(skopeo_program, other)
    assert (doctor.run(), doctor.failed()) == (3, ["provider"])


def test_neither_skopeo_nor_configuration() -> None:
    doctor = Doctor(None)
    doctor.env["PATH"] = str(COCO_KP.parent)
    assert (doctor.run(), doctor.failed()) == (6, ["skopeo", "configuration file"])


def test_a_skopeo_that_is_built_without_key_providers(tmp_path: Path) -> None:
    # What Debian 12's prints (docs/protocols.md, the runs above section 1).
    refusal = "Invalid encryption keys: Provided protocol not recognized"
    script = (
        f'[ "$1" = --version ] && echo "skopeo version 1.9.3" && exit\necho "{refusal}" >&2\nexit 1'
    )
    doctor = Doctor(program(tmp_path / "bin", "skopeo", script))
    assert doctor.run() == 6
    assert "1.9.3 is built without key providers" in str(doctor.checks["skopeo"]["found"])


@pytest.mark.peer
def test_the_probe_of_skopeo_leaves_no_folder_behind(
    skopeo_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # skopeo makes the folder of a dir: destination before it finds that there is no source
    from coco_kp.skopeo import find_skopeo

    log = tmp_path / "arguments"
    program(tmp_path / "bin", "skopeo", f'echo "$@" >> {log}\nexec {skopeo_program} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    skopeo = find_skopeo()
    assert skopeo
    assert skopeo.knows_key_providers
    target = Path(log.read_text().split()[-1].removeprefix("dir:"))
    assert not target.is_dir()


def test_a_skopeo_that_hangs_does_not_hang_the_doctor_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coco_kp import skopeo
    from coco_kp.errors import RemoteError

    program(tmp_path / "bin", "skopeo", "exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(skopeo, "_PROBE_SECONDS", 0.3)
    with pytest.raises(RemoteError, match="did not end"):
        skopeo.find_skopeo()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{}", "has no 'key-providers'"),
        ('{"key-providers": {}}', "names no provider"),
        ('{"key-providers": {"attestation-agent": []}}', "is not an object"),
        # the form of ocicrypt's own example, which does not work (docs/protocols.md 2.1)
        ('{"key-providers": {"attestation-agent": {"path": "/x"}}}', "neither 'cmd' nor 'grpc'"),
        ('{"key-providers": {"attestation-agent": {"ttrpc": "unix:///x"}}}', "neither 'cmd' nor"),
    ],
)
def test_a_configuration_that_skopeo_would_pass_over(tmp_path: Path, text: str, found: str) -> None:
    config = tmp_path / "config"
    config.write_text(text)
    doctor = Doctor(program(tmp_path / "bin", "skopeo", "echo skopeo version 2"), config)
    assert (doctor.run(), doctor.failed()) == (3, ["configuration file"])
    assert found in str(doctor.checks["configuration file"]["found"])


def test_a_provider_of_another_name(tmp_path: Path) -> None:
    config = our_config(tmp_path / "config", "--cmd", "--name", "other")
    doctor = Doctor(program(tmp_path / "bin", "skopeo", "echo skopeo version 2"), config)
    assert (doctor.run(), doctor.failed()) == (3, ["provider name"])
    assert doctor.run("--name", "other") == 0


@pytest.mark.parametrize(
    ("parameters", "code", "found"),
    [
        ("keypath=/nonexistent::keyid=/a/b/c", 4, "no such file"),
        ("keyid=/a/b/c", 4, "keypath is missing"),
        ("keypath=/k::keyid=nope", 3, "key id 'nope' cannot be used"),
        ("sample=true", 0, "for trials only"),
    ],
)
def test_parameters(tmp_path: Path, parameters: str, code: int, found: str) -> None:
    skopeo = program(tmp_path / "bin", "skopeo", "echo skopeo version 2")
    doctor = Doctor(skopeo, our_config(tmp_path / "config", "--cmd"))
    assert doctor.run("--parameters", parameters) == code
    assert found in str(doctor.checks["encryption parameters"]["found"])


def test_a_key_that_others_may_read_is_a_finding(tmp_path: Path, key: Key) -> None:
    key.path.chmod(0o644)
    skopeo = program(tmp_path / "bin", "skopeo", "echo skopeo version 2")
    doctor = Doctor(skopeo, our_config(tmp_path / "config", "--cmd"))
    assert doctor.run("--parameters", key.parameters()) == 4
    assert "chmod 600" in str(doctor.checks["encryption parameters"]["found"])
