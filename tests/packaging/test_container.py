"""The container images, built without a registry, and every command of docs/container.md."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trustme

from coco_kp.cli.main import run
from tests.packaging.container_host import ContainerHost, container_host
from tests.packaging.login import HTPASSWD, LOGIN
from tests.peers.debian import debian_bin
from tests.peers.registry import registry_daemon
from tests.peers.skopeo import Skopeo, find_skopeo
from tests.support.image import Image, tar, write_image
from tests.support.markdown import blocks
from tests.support.traces import traces

if TYPE_CHECKING:
    from collections.abc import Iterator

# One process has the images and the containers.
pytestmark = [pytest.mark.full, pytest.mark.xdist_group("containers")]

PAGE: Final = "docs/container.md"
UPSTREAM: Final = "ghcr.io/confidential-containers/staged-images/coco-keyprovider"

OPEN: Final = ("registry-1.docker.io", "ghcr.io")
GUARDED: Final = ("private.registry.io", "registry.example")
"""Registries of the examples; the latter ask for `LOGIN`."""

# A skopeo beside the containers, as users have it: Debian 12's own has no key providers.
SKOPEO: Final = """
skopeo() {
    docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:$PWD" --workdir "$PWD" \\
        --volume ~/.docker/config.json:/root/.docker/config.json:ro \\
        --env OCICRYPT_KEYPROVIDER_CONFIG="${OCICRYPT_KEYPROVIDER_CONFIG-}" coco-kp skopeo "$@"
}
"""


@dataclass(frozen=True)
class Site:
    """Containers, and the registries that they know by name."""

    host: ContainerHost
    open_registry: str
    guarded_registry: str
    certificates: Path
    """A folder, as ``--cert-dir`` takes it."""

    def user(self, number: int) -> Path:
        """Return the home of a user with this id, who is logged in to the guarded registries."""
        home = self.host.home(number)
        config = home / ".docker/config.json"
        config.parent.mkdir()
        login = {"auth": base64.b64encode(LOGIN.encode()).decode()}
        config.write_text(json.dumps({"auths": dict.fromkeys(GUARDED, login)}))
        config.chmod(0o600)
        for path in (config.parent, config):
            os.chown(path, number, number)
        return home

    def opened(self, reference: str, key: Path, folder: Path) -> Image:
        """Verify an encrypted image from outside, decrypt it and return the result."""
        access = ["--cert-dir", str(self.certificates), "--creds", LOGIN]
        if not reference.startswith("docker:"):
            access = []
        verify = ["verify", reference, "--keypath", str(key), "--target", "coco"]
        assert run([*verify, *access]) == 0
        decrypted = Image(folder)
        decrypt = ["decrypt", reference, decrypted.reference, "--keypath", str(key)]
        assert (
            run([*decrypt, *(f"--src-{word[2:]}" if word[:2] == "--" else word for word in access)])
            == 0
        )
        return decrypted


@pytest.fixture(scope="module")
def host() -> Iterator[ContainerHost]:
    """A machine with the images that ``make image`` built."""
    with container_host() as machine:
        machine.build_images()
        yield machine


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("image")
    return write_image(folder, [tar({"motd": b"hello"}), tar({"data": bytes(100_000)})])


@pytest.fixture(scope="module")
def site(
    host: ContainerHost, image: Image, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    skopeo = Skopeo(find_skopeo(), folder)
    # Names without a port mean 443: each registry has an address of loopback of its own.
    one, other = random.sample(range(1, 255), 2)
    plain, guarded = f"127.83.75.{one}", f"127.83.75.{other}"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    (folder / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    names = dict.fromkeys(OPEN, plain) | dict.fromkeys(GUARDED, guarded)
    with (
        registry_named(OPEN, plain, authority, folder / "open"),
        registry_named(GUARDED, guarded, authority, folder / "guarded", auth=auth),
        host.service(names, authority.cert_pem.bytes()),
    ):
        for place in (
            f"{plain}:443/library/nginx:stable",
            f"{guarded}:443/nginx:stable",
            f"{guarded}:443/team/app:1",
        ):
            skopeo.copy(image.reference, f"docker://{place}", "--dest-creds", LOGIN)
        yield Site(host, f"{plain}:443", f"{guarded}:443", folder)


@contextmanager
def registry_named(
    names: tuple[str, ...], address: str, authority: trustme.CA, folder: Path, **sections: object
) -> Iterator[None]:
    """Run a registry with these names at port 443 of this address."""
    folder.mkdir()
    pem = folder / "cert.pem"
    authority.issue_cert(address, *names).private_key_and_cert_chain_pem.write_to_path(pem)
    tls = {"certificate": str(pem), "key": str(pem)}
    settings = {"http": {"addr": f"{address}:443", "tls": tls}, **sections}
    with registry_daemon(debian_bin() / "docker-registry", folder, **settings) as running:
        running.address(address)
        yield


def test_the_page_says_how_the_images_were_built() -> None:
    assert blocks(PAGE, "sh")[0] == "make image\n"


def test_upstreams_examples_run_word_by_word(site: Site, image: Image, tmp_path: Path) -> None:
    home = site.user(1000)
    site.host.run(f"docker tag coco-kp {UPSTREAM}:latest", home)
    site.host.run(SKOPEO + "".join(blocks(PAGE, "bash")), home)
    for number, reference in enumerate(
        (
            f"dir:{home}/output",
            f"docker://{site.open_registry}/confidential-containers/nginx-encrypted",
            f"docker://{site.guarded_registry}/nginx:encrypted",
        )
    ):
        opened = site.opened(reference, home / "image_key", tmp_path / str(number))
        assert opened.layers == image.layers
    assert {path.stat().st_uid for path in (home / "output").iterdir()} == {1000}
    assert_no_trace((home / "image_key").read_bytes(), site.host, home)


def test_upstreams_usage_is_what_encrypt_sh_prints(site: Site) -> None:
    home = site.user(1000)
    site.host.run(f"docker tag coco-kp {UPSTREAM}:latest", home)
    for block in blocks(PAGE, "console"):
        command, _, printed = block.removeprefix("$ ").partition("\n")
        assert site.host.run(command, home) == printed


def test_the_readmes_commands_run_as_they_stand(site: Site, image: Image, tmp_path: Path) -> None:
    home = site.user(1000)
    shutil.copytree(image.folder, home / "app")
    for path in (home / "app", *(home / "app").rglob("*")):
        os.chown(path, 1000, 1000)
    site.host.run("".join(blocks("README.md", "bash")), home)
    opened = site.opened(f"oci:{home}/app-by-container", home / "image_key", tmp_path / "opened")
    assert opened.layers == image.layers


@pytest.mark.parametrize("number", [1000, 4242])
def test_our_examples_run_as_they_stand(
    site: Site, image: Image, tmp_path: Path, number: int
) -> None:
    home = site.user(number)
    site.host.run(SKOPEO + "".join(blocks(PAGE, "sh")[1:]), home)
    for tag in ("1-encrypted", "1-by-skopeo"):
        reference = f"docker://{site.guarded_registry}/team/app:{tag}"
        opened = site.opened(reference, home / "keys/app.key", tmp_path / tag)
        assert opened.layers == image.layers
    assert (home / "keys/app.key").stat().st_uid == number


def test_the_provider_takes_no_key_from_elsewhere(site: Site) -> None:
    home = site.user(1000)
    script = """
    head -c 32 /dev/urandom > key
    docker run --detach --rm --name provider -v "$PWD/key:/etc/key:ro" coco-kp
    until docker exec provider test -S /run/coco-kp/provider.sock; do sleep 0.1; done
    docker exec provider coco-kp config --grpc unix:///run/coco-kp/provider.sock > ocicrypt.json
    docker cp ocicrypt.json provider:/tmp/ocicrypt.json
    ! docker exec --env OCICRYPT_KEYPROVIDER_CONFIG=/tmp/ocicrypt.json provider \\
        coco-kp doctor --parameters keypath=/etc/key::keyid=kbs:///a/b/c
    docker stop provider > stopped
    """
    assert re.search(r"^FAIL.*(keypath|key)", site.host.run(script, home), flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["coco-kp", "coco-kp:slim"])
def test_an_image_runs_without_root_and_has_nothing_of_the_build(site: Site, name: str) -> None:
    home = site.user(1000)
    script = f"""
    docker run --rm {name} id -u
    docker run --rm {name} grep CapEff /proc/self/status
    docker run --rm {name} find /run/secrets /run/coco-kp /keys -mindepth 1
    docker run --rm --user 0 {name} grep --recursive --files-with-matches /run/secrets /etc || true
    docker run --rm {name} cat /etc/apt/sources.list
    """
    uid, capabilities, *rest = site.host.run(script, home).splitlines()
    assert (uid, capabilities) == ("1000", "CapEff:\t0000000000000000")
    assert rest == ["deb http://deb.debian.org/debian trixie main"]


def test_slim_has_no_skopeo_and_neither_has_pip(site: Site) -> None:
    home = site.user(1000)
    script = "for program in skopeo coco-kp pip pip3; do command -v $program || true; done"
    found = site.host.run(f"docker run --rm coco-kp:slim sh -c '{script}'", home)
    assert found == "/opt/coco-kp/bin/coco-kp\n"
    found = site.host.run(f"docker run --rm coco-kp sh -c '{script}'", home)
    assert found == "/usr/bin/skopeo\n/opt/coco-kp/bin/coco-kp\n"


def test_the_packages_are_those_of_the_lock_file(site: Site) -> None:
    script = """docker run --rm coco-kp python3 -c '
from importlib.metadata import distributions
for each in distributions(): print(each.name, each.version)'"""
    installed = dict(line.split() for line in site.host.run(script, site.user(1000)).splitlines())
    assert installed.pop("coco-kp")
    lock = Path(__file__).parents[2] / "requirements/runtime.txt"
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), flags=re.MULTILINE))
    assert {
        re.sub(r"[._]", "-", name.lower()): version for name, version in installed.items()
    }.items() <= locked.items()


def assert_no_trace(key: bytes, host: ContainerHost, home: Path) -> None:
    """Nothing that a container wrote into its own file system shows a piece of the key."""
    script = "docker inspect --format '{{.GraphDriver.Data.UpperDir}}' $(docker ps --all --quiet)"
    folders = [Path(line) for line in host.run(script, home).splitlines()]
    pieces = traces(key)
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        assert not any(piece in data for piece in pieces), path
