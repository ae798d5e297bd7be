"""The commands that read and write files, each with what it needs and what it must have done."""

from __future__ import annotations

import json
import os
import random
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.sim.kbs import ADMIN_TOKEN
from tests.support.documents import Layer
from tests.support.fleet import done, plan_line
from tests.support.image import tar, write_image
from tests.support.ocicrypt import unwrap_request, wrap_request
from tests.vectors import load_vectors

Arguments = Sequence[str]
"""Words of a command line, in which ``{here}`` is the scratch folder, ``{registry}`` and ``{kbs}``
are addresses, ``{own}`` is this scenario's alone, and ``{n}`` another each time."""

KID: Final = "kbs:///default/key/1"
OTHER: Final = "kbs:///default/key/2"
MARK: Final = b"what nobody but a guest may read " * 4
_PACKET: Final = next(v for v in load_vectors("packets")["good"] if v["name"] == "gcm")
_HTTP: Final = ("--tls-verify=false",)
_DEST_HTTP, _SRC_HTTP = ("--dest-tls-verify=false",), ("--src-tls-verify=false",)
_KEY: Final = ("--keypath", "{here}/key")
_NEW_KEY: Final = ("--keypath", "{here}/new-key")


@dataclass(frozen=True)
class Scenario:
    """A command: ``verified`` is run after it and must succeed; ``again`` is the command in place
    of the same one where that cannot succeed twice; ``fresh`` are files it makes but once."""

    name: str
    command: Arguments
    verified: Arguments = ()
    setup: Sequence[Arguments] = ()
    again: Arguments = ()
    fresh: Sequence[str] = ()
    shows: bool = False
    """Whether the command only shows something, and always the same."""
    secret: bool = True
    """Whether no plaintext may be in what is left."""
    stdin: bytes = b""
    """What the command reads there."""
    writes_key: bool = False
    """Whether what the command writes is a key, which stays where it cannot be removed."""
    stays: str = ""
    """A pattern of files that may stay after a failure, by the contract."""
    goes: str = ""
    """A pattern of files that a failure may leave removed: the next run removes the others."""


def write_base(here: Path) -> None:
    """Write what all scenarios find: a plain image, keys, and folders of the user."""
    write_image(
        here / "src",
        [
            Layer(tar({"data": random.Random(1).randbytes(150_000)})),
            Layer(tar({"text": MARK * 20})),
        ],
    )
    for name in ("key", "new-key"):
        (here / name).write_bytes(random.Random(name).randbytes(32))
        (here / name).chmod(0o600)
    (here / "keys.json").write_bytes(b"{}")
    (here / "keys.json").chmod(0o600)
    (here / "token").write_text(ADMIN_TOKEN)
    (here / "token").chmod(0o600)
    (here / "packet-keys.json").write_text(
        json.dumps({"default/key/key_id1": b64encode(bytes.fromhex(_PACKET["kek"])).decode()})
    )
    (here / "packet-keys.json").chmod(0o600)
    (here / "plan.jsonl").write_text(plan_line().to_json())
    (here / "results.jsonl").write_text(done(plan_line()).to_json())
    for name in ("tmp", "home"):
        (here / name).mkdir()


def environment(here: Path) -> dict[str, str]:
    """Return the environment in which commands know no other files of the user."""
    return {
        "HOME": str(here / "home"),
        "XDG_STATE_HOME": str(here / "home/state"),
        "TMPDIR": str(here / "tmp"),
        "PATH": os.environ["PATH"],
    }


def _encrypt(source: str, target: str, *more: str) -> tuple[str, ...]:
    return ("encrypt", source, target, "--keyid", KID, *_KEY, *more)


def _decrypt(source: str, target: str, *more: str) -> tuple[str, ...]:
    return ("decrypt", source, target, *_KEY, *more)


def _opens(image: str, *more: str) -> tuple[str, ...]:
    return ("verify", image, *(more or _KEY))


def _is_plain(image: str, *more: str) -> tuple[str, ...]:
    return ("verify", image, "--allow-layer", "0", "--allow-layer", "1", *more)


_SRC: Final = "oci:{here}/src"
_ENC: Final = "oci:{here}/enc:app"
_MAKE_ENC: Final = _encrypt(_SRC, _ENC)
_REMOTE: Final = "docker://{registry}/base-{own}:1"
_MAKE_REMOTE: Final = _encrypt(_SRC, _REMOTE, *_DEST_HTTP)
_NEW_REMOTE: Final = "docker://{registry}/n{n}:1"
_REGISTER: Final = ("--register", "--kbs", "{kbs}", "--admin-token-file", "{here}/token")


def _both(kind: str, suffix: str = "") -> list[Scenario]:
    """Encrypt and decrypt into a kind of destination."""
    encrypted, plain = f"{kind}:{{here}}/made{suffix}", f"{kind}:{{here}}/plain{suffix}"
    return [
        Scenario(f"encrypt {kind}", _encrypt(_SRC, encrypted), _opens(encrypted)),
        Scenario(
            f"encrypt {kind} anew",
            _encrypt(_SRC, encrypted),
            _opens(encrypted),
            setup=[_encrypt(_SRC, encrypted)],
        ),
        Scenario(
            f"decrypt {kind}",
            _decrypt(_ENC, plain),
            _is_plain(plain),
            setup=[_MAKE_ENC],
            secret=False,
        ),
        Scenario(
            f"rewrap {kind} in place",
            ("rewrap", encrypted, *_KEY, "--to-keyid", OTHER, "--to-keypath", "{here}/new-key"),
            _opens(encrypted, *_NEW_KEY),
            setup=[_encrypt(_SRC, encrypted)],
            again=(
                "rewrap",
                encrypted,
                *_NEW_KEY,
                "--to-keyid",
                OTHER,
                "--to-keypath",
                "{here}/new-key",
            ),
        ),
    ]


SCENARIOS: Final = [
    *_both("oci", ":app"),
    *_both("oci-archive", ".tar"),
    *_both("dir"),
    Scenario(
        "encrypt several layers at once",
        _encrypt(_SRC, _ENC, "--jobs", "2", "--verify", "full", "--digestfile", "{here}/digest"),
        _opens(_ENC),
    ),
    Scenario(
        "encrypt with a new key",
        ("encrypt", _SRC, _ENC, "--keyid", KID, "--generate-key", "{here}/made-key"),
        _opens(_ENC, "--keypath", "{here}/made-key"),
        fresh=["made-key"],
    ),
    Scenario(
        "encrypt and register",
        ("encrypt", _SRC, _ENC, "--generate-key", "{here}/made-key", *_REGISTER),
        _opens(_ENC, "--keypath", "{here}/made-key"),
        fresh=["made-key"],
        stays=r"home/.*",
    ),
    Scenario(
        "encrypt --reuse",
        _encrypt(_SRC, "oci:{here}/made", "--reuse", _ENC),
        _opens("oci:{here}/made"),
        setup=[_MAKE_ENC],
    ),
    Scenario(
        "encrypt from docker-archive",
        _encrypt("docker-archive:{here}/plain.tar", _ENC),
        _opens(_ENC),
        setup=[_MAKE_ENC, _decrypt(_ENC, "docker-archive:{here}/plain.tar")],
    ),
    Scenario(
        "encrypt registry",
        _encrypt(_SRC, _NEW_REMOTE, *_DEST_HTTP, "--retries", "0"),
        _opens(_NEW_REMOTE, *_KEY, *_HTTP),
    ),
    Scenario(
        "decrypt registry to registry",
        _decrypt(_REMOTE, _NEW_REMOTE, *_SRC_HTTP, *_DEST_HTTP, "--retries", "0"),
        _is_plain(_NEW_REMOTE, *_HTTP),
        setup=[_MAKE_REMOTE],
        secret=False,
    ),
    Scenario(
        "decrypt registry to oci",
        _decrypt(_REMOTE, "oci:{here}/plain", *_SRC_HTTP, "--retries", "0"),
        _is_plain("oci:{here}/plain"),
        setup=[_MAKE_REMOTE],
        secret=False,
    ),
    Scenario(
        "decrypt docker-archive",
        _decrypt(_ENC, "docker-archive:{here}/plain.tar"),
        _is_plain("docker-archive:{here}/plain.tar"),
        setup=[_MAKE_ENC],
        fresh=["plain.tar"],
        secret=False,
    ),
    Scenario(
        "rewrap registry",
        (
            *("rewrap", _REMOTE, _NEW_REMOTE, *_SRC_HTTP, *_DEST_HTTP, "--retries", "0", *_KEY),
            *("--add", f"keyid={OTHER},keypath={{here}}/new-key"),
        ),
        _opens(_NEW_REMOTE, *_NEW_KEY, *_HTTP),
        setup=[_MAKE_REMOTE],
    ),
    Scenario("verify oci", _opens(_ENC), setup=[_MAKE_ENC], shows=True),
    Scenario(
        "verify oci-archive",
        _opens("oci-archive:{here}/enc.tar"),
        setup=[_encrypt(_SRC, "oci-archive:{here}/enc.tar")],
        shows=True,
    ),
    Scenario("verify registry", _opens(_REMOTE, *_KEY, *_HTTP), setup=[_MAKE_REMOTE], shows=True),
    Scenario("inspect oci", ("inspect", _ENC), setup=[_MAKE_ENC], shows=True),
    Scenario(
        "inspect dir",
        ("inspect", "dir:{here}/enc"),
        setup=[_encrypt(_SRC, "dir:{here}/enc")],
        shows=True,
    ),
    Scenario(
        "prune",
        ("prune", "oci:{here}/enc"),
        _opens(_ENC),
        setup=[_MAKE_ENC, (*_MAKE_ENC, "--keep-replaced")],
        goes=r"enc/blobs/.*",
    ),
    Scenario(
        "fleet report",
        ("fleet", "report", "{here}/results.jsonl", "-o", "{here}/report.html"),
        ("fleet", "report", "{here}/results.jsonl"),
    ),
    Scenario(
        "fleet k8s",
        (
            *("fleet", "k8s", "{here}/plan.jsonl", "--image", "coco-kp", "--completions", "1"),
            *("--key-secret", "keys:/run/keys", "-o", "{here}/job.yaml"),
        ),
    ),
    Scenario(
        "keys generate",
        ("keys", "generate", "-o", "{here}/made.json"),
        ("keys", "list", "{here}/made.json"),
        fresh=["made.json"],
    ),
    Scenario(
        "keys import",
        ("keys", "import", "{here}/keys.json", "default/key/1", "{here}/key"),
        ("keys", "list", "{here}/keys.json"),
        again=("keys", "import", "{here}/keys.json", "default/key/1", "{here}/key", "--force"),
    ),
    Scenario(
        "keys export",
        ("keys", "export", "{here}/keys.json", "default/key/1", "{here}/made-key", "--force"),
        _opens(_ENC, "--keypath", "{here}/made-key"),
        setup=[_MAKE_ENC, ("keys", "import", "{here}/keys.json", "default/key/1", "{here}/key")],
        writes_key=True,
    ),
    Scenario(
        "keys list",
        ("keys", "list", "{here}/keys.json"),
        setup=[("keys", "import", "{here}/keys.json", "default/key/1", "{here}/key")],
        shows=True,
    ),
    Scenario(
        "keys register",
        ("keys", "register", "{here}/key", "kbs:///default/key/n{n}", *_REGISTER[1:]),
        stays=r"home/.*",
    ),
    Scenario(
        "keyprovider wraps",
        ("keyprovider", "--key-dir", "{here}"),
        stdin=wrap_request("keypath=key::keyid=/default/key/1", _PACKET["optsdata"].encode()),
    ),
    Scenario(
        "keyprovider unwraps",
        ("keyprovider", "--keys", "{here}/packet-keys.json"),
        stdin=unwrap_request("offline_fs_kbc::null", _PACKET["packet"].encode()),
        shows=True,
    ),
    Scenario("config", ("config", "--cmd", "-o", "{here}/ocicrypt.json"), fresh=["ocicrypt.json"]),
]
