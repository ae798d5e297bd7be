"""``coco-kp doctor`` on machines that lack one thing or another."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from shutil import which

import pytest

from coco_kp.errors import RemoteError
from coco_kp.skopeo import PROGRAMS, find_program
from tests.support.key import Key
from tests.support.provider import COCO_KP, grpc_config, our_config, served_address, serving


class Doctor:
    """Runs the command where these programs alone are on PATH, with a configuration or without."""

    def __init__(self, folder: Path, config: Path | None = None, **programs: Path) -> None:
        path = folder / "path"
        path.mkdir(exist_ok=True)
        # what the launchers of Debian's programs call
        needed = {name: Path(found) for name in ("dirname", "readlink") if (found := which(name))}
        for name, target in {**needed, **programs}.items():
            (path / name).unlink(missing_ok=True)
            (path / name).symlink_to(target)
        self.env = {"PATH": str(path), "HOME": "/nonexistent"}
        if config:
            self.env["OCICRYPT_KEYPROVIDER_CONFIG"] = str(config)
        self.checks: dict[str, dict[str, object]] = {}

    def run(self, *arguments: str) -> int:
        """Run it and return its exit code."""
        command = [str(COCO_KP), "doctor", "--format", "json", *arguments]
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stderr == ""
        self.checks = {check["check"]: check for check in json.loads(done.stdout)}
        return done.returncode

    def failed(self) -> list[str]:
        """Return the names of the checks that failed."""
        return [name for name, check in self.checks.items() if not check["ok"]]

    def found(self, check: str) -> str:
        """Return what a check found."""
        return str(self.checks[check]["found"])


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def any_skopeo(folder: Path) -> Path:
    return program(folder / "bin", "skopeo", WITH_PROVIDERS["skopeo"])


@pytest.mark.peer
def test_doctor_passes_every_check_when_all_is_in_order(
    skopeo_program: Path, key: Key, tmp_path: Path
) -> None:
    with serving(tmp_path) as server:
        address = served_address(server)
        doctor = Doctor(
            tmp_path, our_config(tmp_path / "config", "--grpc", address), skopeo=skopeo_program
        )
        assert doctor.run("--parameters", key.parameters()) == 0
    assert doctor.failed() == []
    assert doctor.checks["provider"]["found"] == f"{address} SERVING"
    assert "built with key providers" in str(doctor.checks["skopeo"]["found"])
    assert "kbs:///default/key/key_id1" in str(doctor.checks["encryption parameters"]["found"])


@pytest.mark.peer
def test_doctor_reports_that_no_provider_answers(skopeo_program: Path, tmp_path: Path) -> None:
    config = our_config(tmp_path / "config", "--grpc", f"unix://{tmp_path}/socket")
    doctor = Doctor(tmp_path, config, skopeo=skopeo_program)
    assert doctor.run() == 6
    assert doctor.failed() == ["provider"]
    assert doctor.checks["provider"]["hint"] == "start it: coco-kp serve"


@pytest.mark.parametrize("form", ["{}", "tcp://{}"])
def test_doctor_reaches_provider_past_proxies_and_behind_tcp(tmp_path: Path, form: str) -> None:
    """It failed where encrypt worked: it asked a proxy, and took tcp:// for a host name."""
    with serving(tmp_path) as server:
        config = grpc_config(tmp_path / "config", form.format(served_address(server)))
        doctor = Doctor(tmp_path, config, skopeo=any_skopeo(tmp_path))
        doctor.env |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
        assert (doctor.run(), doctor.failed()) == (0, [])


def test_doctor_cannot_say_of_a_script_that_it_reads_grpc_tls(tmp_path: Path) -> None:
    config = our_config(tmp_path / "c", "--grpc", f"unix://{tmp_path}/s", "--tls-server-name", "kp")
    doctor = Doctor(tmp_path, config, skopeo=any_skopeo(tmp_path))
    assert (doctor.run(), doctor.failed()) == (6, ["provider", "TLS of skopeo"])
    assert "is a script, which does not say" in doctor.found("TLS of skopeo")


def test_doctor_reports_client_certificate_without_its_key(tmp_path: Path) -> None:
    config = tmp_path / "config"
    tls = {"cert-file": "/client.pem"}
    server = {"grpc": "127.0.0.1:1", "grpc-tls": tls}
    config.write_text(json.dumps({"key-providers": {"attestation-agent": server}}))
    doctor = Doctor(tmp_path, config, skopeo=any_skopeo(tmp_path))
    assert (doctor.run(), doctor.failed()) == (3, ["provider", "TLS of skopeo"])
    assert "one of cert-file and key-file alone" in doctor.found("provider")


@pytest.mark.peer
def test_doctor_checks_command_of_ocicrypt_configuration(
    skopeo_program: Path, tmp_path: Path
) -> None:
    doctor = Doctor(tmp_path, our_config(tmp_path / "config", "--cmd"), skopeo=skopeo_program)
    assert doctor.run() == 0
    other = tmp_path / "other"
    other.write_text(
        json.dumps({"key-providers": {"attestation-agent": {"cmd": {"path": "/none"}}}})
    )
    doctor = Doctor(tmp_path, other, skopeo=skopeo_program)
    assert (doctor.run(), doctor.failed()) == (3, ["provider"])


def test_doctor_reports_missing_programs_and_configuration(tmp_path: Path) -> None:
    doctor = Doctor(tmp_path)
    assert (doctor.run(), doctor.failed()) == (6, ["skopeo", "configuration file"])
    assert doctor.found("skopeo") == "none of skopeo, buildah, podman is on PATH"


# What each answers that can call key providers, and what Debian 12's answers.
WITH_PROVIDERS = {
    "skopeo": """\
[ "$1" = --version ] && echo skopeo version 1.18.0 && exit
echo "determining manifest MIME type for $5: open no such file" >&2; exit 1""",
    "buildah": """\
[ "$1" = --version ] && echo "buildah version 1.39.3 (image-spec 1.1.0, runtime-spec 1.2.0)" && exit
echo 'Error: pushing image "localhost/coco-kp-probe" to "dir:/x": image not known' >&2; exit 125""",
    "podman": """\
[ "$1" = --version ] && echo podman version 5.4.2 && exit
echo '      --encryption-key stringArray    Key with the encryption protocol to use'""",
}
REFUSAL = "invalid encryption keys: Provided protocol not recognized"
WITHOUT_PROVIDERS = {
    "skopeo": f"""\
[ "$1" = --version ] && echo skopeo version 1.9.3 && exit
echo 'Invalid encryption keys: {REFUSAL}' >&2; exit 1""",
    "buildah": f"""\
[ "$1" = --version ] && echo "buildah version 1.28.2 (image-spec 1.0.2, runtime-spec 1.0.2)" && exit
echo 'Error: unable to obtain encryption config: {REFUSAL}' >&2; exit 125""",
    "podman": """\
[ "$1" = --version ] && echo podman version 4.3.1 && exit
echo '      --digestfile string             Write the digest of the pushed image'""",
}
VERSIONS = {
    "skopeo": ("1.18.0", "1.9.3"),
    "buildah": ("1.39.3", "1.28.2"),
    "podman": ("5.4.2", "4.3.1"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_doctor_accepts_any_one_program_with_key_providers(tmp_path: Path, name: str) -> None:
    file = program(tmp_path / "bin", name, WITH_PROVIDERS[name])
    doctor = Doctor(tmp_path, our_config(tmp_path / "config", "--cmd"), **{name: file})
    assert (doctor.run(), doctor.failed()) == (0, [])
    found = f"{tmp_path}/path/{name} {VERSIONS[name][0]}, built with key providers"
    assert doctor.found(name) == found
    assert set(PROGRAMS) & doctor.checks.keys() == {name}


@pytest.mark.parametrize("name", PROGRAMS)
def test_doctor_reports_program_without_key_providers(tmp_path: Path, name: str) -> None:
    scripts = WITH_PROVIDERS | {name: WITHOUT_PROVIDERS[name]}
    files = {each: program(tmp_path / "bin", each, script) for each, script in scripts.items()}
    doctor = Doctor(tmp_path, our_config(tmp_path / "config", "--cmd"), **files)
    assert (doctor.run(), doctor.failed()) == (6, [name])
    found = f"{tmp_path}/path/{name} {VERSIONS[name][1]} is built without key providers"
    assert doctor.found(name) == found


@pytest.mark.parametrize("name", ["skopeo", "buildah"])
def test_doctor_reports_program_that_cannot_start(tmp_path: Path, name: str) -> None:
    script = "echo 'finding newgidmap: executable file not found in $PATH' >&2; exit 1"
    doctor = Doctor(tmp_path, **{name: program(tmp_path / "bin", name, script)})
    assert doctor.run() == 6
    assert "does not run here: 'finding newgidmap" in doctor.found(name)


@pytest.mark.parametrize("name", ["buildah", "podman"])
def test_doctor_probe_of_program_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # buildah and podman make folders of their own as soon as they start
    script = 'mkdir -p "$TMPDIR/made" "$XDG_RUNTIME_DIR/made" "$XDG_CONFIG_HOME/made"'
    program(tmp_path / "bin", name, f"{script}\n{WITH_PROVIDERS[name]}")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    for variable in ("TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(home))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = find_program(name)
    assert found
    assert found.knows_key_providers
    assert list(home.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "home"}


@pytest.mark.peer
def test_doctor_probe_of_real_skopeo_leaves_no_folder_behind(
    skopeo_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # skopeo writes into the folder of a dir: destination before it finds that there is no source
    log = tmp_path / "arguments"
    program(tmp_path / "bin", "skopeo", f'echo "$@" >> {log}\nexec {skopeo_program} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    skopeo = find_program("skopeo")
    assert skopeo
    assert skopeo.knows_key_providers
    target = Path(log.read_text().split()[-1].removeprefix("dir:"))
    assert not target.parent.exists()


def test_doctor_gives_up_on_skopeo_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "skopeo", "exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with pytest.raises(RemoteError, match="did not end"):
        find_program("skopeo", seconds=0.3)


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
def test_doctor_reports_configuration_that_skopeo_would_ignore(
    tmp_path: Path, text: str, found: str
) -> None:
    config = tmp_path / "config"
    config.write_text(text)
    doctor = Doctor(tmp_path, config, skopeo=any_skopeo(tmp_path))
    assert (doctor.run(), doctor.failed()) == (3, ["configuration file"])
    assert found in str(doctor.checks["configuration file"]["found"])


def test_doctor_reports_provider_name_missing_from_configuration(tmp_path: Path) -> None:
    config = our_config(tmp_path / "config", "--cmd", "--name", "other")
    doctor = Doctor(tmp_path, config, skopeo=any_skopeo(tmp_path))
    assert (doctor.run(), doctor.failed()) == (3, ["provider name"])
    assert doctor.run("--name", "other") == 0


@pytest.mark.parametrize(
    ("parameters", "code", "found"),
    [
        ("keypath=/nonexistent::keyid=/a/b/c", 4, "no such file"),
        ("keyid=/a/b/c", 4, "keypath is missing"),
        ("keypath=/k::keyid=nope", 3, "key ID 'nope' cannot be used"),
        ("sample=true", 0, "for trials only"),
    ],
)
def test_doctor_checks_encryption_parameters(
    tmp_path: Path, parameters: str, code: int, found: str
) -> None:
    config = our_config(tmp_path / "config", "--cmd")
    doctor = Doctor(tmp_path, config, skopeo=any_skopeo(tmp_path))
    assert doctor.run("--parameters", parameters) == code
    assert found in str(doctor.checks["encryption parameters"]["found"])


def test_doctor_reports_key_that_others_may_read(tmp_path: Path, key: Key) -> None:
    key.path.chmod(0o644)
    config = our_config(tmp_path / "config", "--cmd")
    doctor = Doctor(tmp_path, config, skopeo=any_skopeo(tmp_path))
    assert doctor.run("--parameters", key.parameters()) == 4
    assert "chmod 600" in str(doctor.checks["encryption parameters"]["found"])
