"""``registries.conf`` and ``certs.d``: which registry is asked, by us as by a running skopeo."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from coco_kp.errors import CocoKpError
from coco_kp.model.reference import parse_image_reference
from coco_kp.transport import open_source
from tests.peers.skopeo import TIMEOUT, find_skopeo
from tests.sim.registry import Registry, serve
from tests.support.stored import Image, image

pytestmark = pytest.mark.peer

IMAGES = {name: image(f"of {name}".encode()) for name in "abc"}
"""What each registry has, under all names."""

NAMES = ("team/app", "moved/app", "moved/team/app", "library/app")
ENTRY = '[[registry]]\nlocation = "{}"\n'
MAIN = "registries.conf"
HOME = ".config/containers"


@dataclass(frozen=True)
class Case:
    """Files of a user, an image, and which registry gives it: a, b, c, or none.

    ``{a}``, ``{b}`` and ``{c}`` stand for registries of plain http, ``{digest}`` for an image's.
    """

    files: Mapping[str, str]
    image: str
    gives: str | None
    named: str = ""
    """The file that the environment names; the skopeo of Debian 13 knows it by an option only."""
    skopeo_gives: str | None = "as we do"
    """What skopeo does where that differs."""


def main(text: str, image: str, gives: str | None) -> Case:
    return Case({f"{HOME}/{MAIN}": text}, image, gives)


def entry(location: str = "{a}", more: str = "insecure = true", *mirrors: str) -> str:
    lines = "".join(f"[[registry.mirror]]\ninsecure = true\n{mirror}\n" for mirror in mirrors)
    return f'[[registry]]\nlocation = "{location}"\n{more}\n{lines}'


B, C = 'location = "{b}"', 'location = "{c}"'
OF_B = "{a}/team/app@{digest}"
CASES = {
    "no file": Case({}, "{a}/team/app:1", None),
    "insecure": main(entry(), "{a}/team/app:1", "a"),
    "not insecure": main(entry(more=""), "{a}/team/app:1", None),
    "insecure, blocked": main(
        entry(more="insecure = true\nblocked = true"), "{a}/team/app:1", None
    ),
    "insecure repository": main(entry("{a}/team"), "{a}/team/app:1", "a"),
    "insecure other repository": main(entry("{a}/tea"), "{a}/team/app:1", None),
    "insecure image": main(entry("{a}/team/app"), "{a}/team/app:1", "a"),
    # skopeo looks its registry up by the name alone, whatever containers-registries.conf(5) says.
    "insecure tag": Case(
        {f"{HOME}/{MAIN}": entry("{a}/team/app:1")}, "{a}/team/app:1", "a", skopeo_gives=None
    ),
    "blocked tag": Case(
        {f"{HOME}/{MAIN}": entry() + entry("{a}/team/app:1", "insecure = true\nblocked = true")},
        "{a}/team/app:1",
        None,
        skopeo_gives="a",
    ),
    "blocked repository": main(
        entry() + '[[registry]]\nlocation = "{a}/team"\nblocked = true\n', "{a}/team/app:1", None
    ),
    "repository beside blocked registry": main(
        entry(more="blocked = true") + entry("{a}/team"), "{a}/team/app:1", "a"
    ),
    "elsewhere": main(
        entry("{b}/moved", 'insecure = true\nprefix = "example.com/team"'),
        "example.com/team/app:1",
        "b",
    ),
    "elsewhere by whole host": main(
        entry("{b}/moved", 'insecure = true\nprefix = "example.com"'), "example.com/team/app:1", "b"
    ),
    "elsewhere without insecure": main(
        entry("{b}", 'prefix = "example.com"'), "example.com/team/app:1", None
    ),
    "longest prefix": main(
        entry("{b}", 'insecure = true\nprefix = "example.com"')
        + entry("{c}/team", 'insecure = true\nprefix = "example.com/team"'),
        "example.com/team/app:1",
        "c",
    ),
    "same prefix twice in a file": main(
        entry("{b}", 'insecure = true\nprefix = "example.com"')
        + entry("{c}", 'insecure = true\nprefix = "example.com"'),
        "example.com/team/app:1",
        "b",
    ),
    "location twice, insecure and not": main(
        entry() + entry("{a}", 'prefix = "example.com"'), "{a}/team/app:1", None
    ),
    "location twice, blocked and not": main(
        entry() + entry("{a}", 'insecure = true\nblocked = true\nprefix = "example.com"'),
        "{a}/team/app:1",
        None,
    ),
    "wildcard": main(
        '[[registry]]\nprefix = "*.example.com"\n[[registry.mirror]]\n' + B + "\ninsecure = true\n",
        "registry.example.com/team/app:1",
        "b",
    ),
    "wildcard is no bare domain": main(
        '[[registry]]\nprefix = "*.127.0.0.1"\nblocked = true\n' + entry(), "{a}/team/app:1", "a"
    ),
    "wildcard with repository": main(
        entry() + '[[registry]]\nprefix = "*.example.com/team"\n', "{a}/team/app:1", None
    ),
    "short name of an alias": main(
        '[aliases]\napp = "{b}/team/app"\n'
        + entry("{a}/library", 'insecure = true\nprefix = "docker.io/library"'),
        "app:1",
        "a",
    ),
    "mirror": main(entry("{a}", "insecure = true", B), "{a}/team/app:1", "b"),
    "mirror of an unreachable registry": main(
        entry("example.com", "", B), "example.com/team/app:1", "b"
    ),
    "mirrors in order": main(entry("{a}", "insecure = true", C, B), "{a}/team/app:1", "c"),
    "mirror that lacks it": main(
        entry("{a}", "insecure = true", 'location = "{b}/nothing"', C), "{a}/team/app:1", "c"
    ),
    "mirrors that lack it": main(
        entry("{a}", "insecure = true", 'location = "{b}/nothing"'), "{a}/team/app:1", "a"
    ),
    "mirror that is blocked itself": main(
        entry("{a}", "insecure = true", B) + entry("{b}", "insecure = true\nblocked = true"),
        "{a}/team/app:1",
        "a",
    ),
    "elsewhere, where it is blocked": main(
        entry("{b}", 'insecure = true\nprefix = "example.com"')
        + entry("{b}/team", "insecure = true\nblocked = true"),
        "example.com/team/app:1",
        None,
    ),
    "mirror that is insecure by its own entry only": main(
        '[[registry]]\nlocation = "{a}"\ninsecure = true\n[[registry.mirror]]\n'
        + B
        + "\n"
        + entry("{b}"),
        "{a}/team/app:1",
        "a",
    ),
    "mirror by digest only, tag": main(
        entry("{a}", "insecure = true", B + '\npull-from-mirror = "digest-only"'),
        "{a}/team/app:1",
        "a",
    ),
    "mirror by digest only, digest": main(
        entry("{a}", "insecure = true", B + '\npull-from-mirror = "digest-only"'), OF_B, "b"
    ),
    "mirror by tag only, tag": main(
        entry("{a}", "insecure = true", B + '\npull-from-mirror = "tag-only"'),
        "{a}/team/app:1",
        "b",
    ),
    "mirror by tag only, digest": main(
        entry("{a}", "insecure = true", B + '\npull-from-mirror = "tag-only"'), OF_B, None
    ),
    "mirrors by digest only, tag": main(
        entry("{a}", "insecure = true\nmirror-by-digest-only = true", B), "{a}/team/app:1", "a"
    ),
    "mirrors by digest only, digest": main(
        entry("{a}", "insecure = true\nmirror-by-digest-only = true", B), OF_B, "b"
    ),
    "mirrors by digest only, and a rule of their own": main(
        entry(
            "{a}",
            "insecure = true\nmirror-by-digest-only = true",
            B + '\npull-from-mirror = "digest-only"',
        ),
        "{a}/team/app:1",
        None,
    ),
    "unknown rule of a mirror": main(
        entry("{a}", "insecure = true", B + '\npull-from-mirror = "never"'), "{a}/team/app:1", None
    ),
    "rule of mirrors at a registry": main(
        entry(more='insecure = true\npull-from-mirror = "all"'), "{a}/team/app:1", None
    ),
    "version 1": main('[registries.insecure]\nregistries = ["{a}"]\n', "{a}/team/app:1", "a"),
    "version 1, blocked": main(
        '[registries.insecure]\nregistries = ["{a}"]\n[registries.block]\nregistries = ["{a}"]\n',
        "{a}/team/app:1",
        None,
    ),
    "both versions": main(
        '[registries.insecure]\nregistries = ["{a}"]\n' + entry("{b}"), "{a}/team/app:1", None
    ),
    "no TOML": main("[[registry", "{a}/team/app:1", None),
    "unknown members": main(entry() + "other = 1\n", "{a}/team/app:1", "a"),
    "drop-in": Case({f"{HOME}/{MAIN}.d/x.conf": entry()}, "{a}/team/app:1", "a"),
    "drop-in of another ending": Case({f"{HOME}/{MAIN}.d/x.txt": entry()}, "{a}/team/app:1", None),
    "drop-in of version 1": Case(
        {f"{HOME}/{MAIN}.d/x.conf": '[registries.insecure]\nregistries = ["{a}"]\n'},
        "{a}/team/app:1",
        None,
    ),
    "drop-in before main file": Case(
        {f"{HOME}/{MAIN}": entry(more=""), f"{HOME}/{MAIN}.d/x.conf": entry()},
        "{a}/team/app:1",
        "a",
    ),
    "later drop-in before earlier": Case(
        {f"{HOME}/{MAIN}.d/x.conf": entry(), f"{HOME}/{MAIN}.d/y.conf": entry(more="")},
        "{a}/team/app:1",
        None,
    ),
    "drop-in takes no mirrors over": Case(
        {
            f"{HOME}/{MAIN}": entry("{a}", "insecure = true", B),
            f"{HOME}/{MAIN}.d/x.conf": entry(),
        },
        "{a}/team/app:1",
        "a",
    ),
    "file of the environment": Case(
        {"named.conf": entry(), f"{HOME}/{MAIN}": ""},
        "{a}/team/app:1",
        "a",
        "named.conf",
    ),
    "file of the environment that is not there": Case(
        {f"{HOME}/{MAIN}": entry()},
        "{a}/team/app:1",
        None,
        "named.conf",
    ),
    "file of the environment, and a drop-in": Case(
        {"named.conf": "", f"{HOME}/{MAIN}.d/x.conf": entry()},
        "{a}/team/app:1",
        "a",
        "named.conf",
    ),
}


@pytest.fixture
def addresses() -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(serve(holding(IMAGES[name]))) for name in IMAGES}


def holding(stored: Image) -> Registry:
    """A registry that has an image under all names."""
    top = stored.top
    there = (top.media_type, top.raw)
    return Registry(
        manifests={(name, key): there for name in NAMES for key in ("1", str(top.digest))}
    )


def run_skopeo(home: Path, *arguments: str) -> bytes | None:
    """Run it as a user whose home this is; return its output, None where it fails."""
    done = subprocess.run(
        [find_skopeo(), "--insecure-policy", *arguments],
        env={"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "PATH": "/nowhere"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    return done.stdout if done.returncode == 0 else None


def read(name: str) -> bytes | None:
    try:
        with open_source(parse_image_reference(name)) as source:
            return source.manifest().raw
    except CocoKpError:
        return None


def prepared(
    case: Case, home: Path, addresses: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> str:
    """Write the files, set the environment, and return the image's name."""
    marks = {**addresses, "digest": str(IMAGES["b"].top.digest)}

    def marked(text: str) -> str:
        for mark, value in marks.items():
            text = text.replace(f"{{{mark}}}", value)
        return text

    for file, text in case.files.items():
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_text(marked(text))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("CONTAINERS_REGISTRIES_CONF", raising=False)
    if case.named:
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(home / case.named))
    return f"docker://{marked(case.image)}"


@pytest.mark.parametrize("name", CASES)
def test_coco_kp_and_skopeo_read_from_same_registry(
    name: str, addresses: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    image_name = prepared(case, tmp_path, addresses, monkeypatch)
    named = ("--registries-conf", str(tmp_path / case.named)) if case.named else ()
    theirs = run_skopeo(tmp_path, *named, "inspect", "--raw", image_name)
    expected = case.gives if case.skopeo_gives == "as we do" else case.skopeo_gives
    assert {"skopeo": giver(theirs), "coco-kp": giver(read(image_name))} == {
        "skopeo": expected,
        "coco-kp": case.gives,
    }


def giver(manifest: bytes | None) -> str | None:
    """Return the registry that has a manifest."""
    return next((name for name, stored in IMAGES.items() if stored.top.raw == manifest), None)


CERTS = {
    "nothing": ({}, False),
    "authority": ({"ca.crt": "ca"}, True),
    "authority under another ending": ({"ca.pem": "ca"}, False),
    "authority called a client's certificate": ({"ca.cert": "ca"}, False),
    "another authority": ({"other.crt": "other"}, False),
    "two authorities": ({"a.crt": "other", "b.crt": "ca"}, True),
    "authority beside other files": ({"ca.crt": "ca", "README": "none"}, True),
    "client's certificate with its key": (
        {"ca.crt": "ca", "client.cert": "certificate", "client.key": "key"},
        True,
    ),
    "client's certificate without a key": ({"ca.crt": "ca", "client.cert": "certificate"}, False),
    "key without a certificate": ({"ca.crt": "ca", "client.key": "key"}, False),
    "client's certificate with another's key": (
        {"ca.crt": "ca", "client.cert": "certificate", "client.key": "other key"},
        False,
    ),
}
"""Files of ``certs.d``, each with what is in it, and whether the registry is trusted then.

A ``.crt`` that is no certificate is left out: skopeo passes over it, here it is an error.
"""


@pytest.mark.parametrize("name", CERTS)
def test_coco_kp_and_skopeo_trust_same_registries(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, other = trustme.CA(), trustme.CA()
    client, stranger = (ca.issue_cert("client@example.com") for ca in (authority, other))
    contents = {
        "ca": authority.cert_pem.bytes(),
        "other": other.cert_pem.bytes(),
        "certificate": client.cert_chain_pems[0].bytes(),
        "key": client.private_key_pem.bytes(),
        "other key": stranger.private_key_pem.bytes(),
        "none": b"nothing of the kind\n",
    }
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    monkeypatch.setenv("HOME", str(tmp_path))
    files, trusted = CERTS[name]
    with serve(holding(IMAGES["a"]), tls=tls) as address:
        folder = tmp_path / ".config/containers/certs.d" / address
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_bytes(contents[content])
        image_name = f"docker://{address}/team/app:1"
        theirs = run_skopeo(tmp_path, "inspect", "--raw", image_name)
        assert {"skopeo": giver(theirs), "coco-kp": giver(read(image_name))} == {
            "skopeo": "a" if trusted else None,
            "coco-kp": "a" if trusted else None,
        }
