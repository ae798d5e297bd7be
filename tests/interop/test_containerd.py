"""containerd pulls encrypted images, as docs/runtimes.md configures it."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from coco_kp.cli.main import run
from coco_kp.skopeo import Program
from tests.peers.containerd import Containerd, PullError, containerd
from tests.peers.debian import CONTAINERD, CONTAINERD_2, debian_bin
from tests.peers.registry import registry
from tests.support.image import Image, tar, write_image
from tests.support.key import Key
from tests.support.markdown import blocks
from tests.support.provider import our_config, served_address, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.peers.debian import Suite

pytestmark = pytest.mark.peer

MOTD = b"of an encrypted layer"


@pytest.fixture
def image() -> list[bytes]:
    return [tar({"motd": MOTD}), tar({"data": bytes(100_000)})]


@pytest.fixture
def encrypted(tmp_path: Path, image: list[bytes], key: Key) -> Iterator[str]:
    """The name of an encrypted image in a registry."""
    plain: Image = write_image(tmp_path / "plain", image)
    (tmp_path / "registry").mkdir()
    with registry(debian_bin() / "docker-registry", tmp_path / "registry") as address:
        name = f"{address}/app:1"
        ours = ["--keypath", str(key.path), "--keyid", "kbs:///default/key/key_id1"]
        target = [f"docker://{name}", "--dest-tls-verify=false"]
        assert run(["encrypt", plain.reference, *target, *ours]) == 0
        yield name


@contextmanager
def pulling(suite: Suite, tmp_path: Path, config: Path) -> Iterator[Containerd]:
    """Run a suite's containerd with the page's sections, and this configuration of ocicrypt."""
    sections, of_version_2 = blocks("docs/runtimes.md", "toml")
    if suite is CONTAINERD_2:
        sections = sections.replace("version = 2", "version = 3") + of_version_2
    for written, here in {
        "/usr/bin/ctd-decoder": str(suite.have() / "bin/ctd-decoder"),
        "/etc/containerd/ocicrypt.json": str(config),
    }.items():
        assert written in sections
        sections = sections.replace(written, here)
    with containerd(suite, tmp_path / "containerd", sections) as running:
        yield running


@pytest.fixture(params=[CONTAINERD, CONTAINERD_2], ids=["1", "2"])
def suite(request: pytest.FixtureRequest) -> Suite:
    """Where containerd comes from, by the number of its version."""
    chosen: Suite = request.param
    return chosen


@pytest.fixture(params=["cmd", "unix"])
def runtime(
    request: pytest.FixtureRequest, suite: Suite, tmp_path: Path, key: Key
) -> Iterator[Containerd]:
    """A containerd whose decoder asks our provider, once for each way that a host would use."""
    config, keys = tmp_path / "ocicrypt.json", ("--keys", str(key.keys_file))
    with ExitStack() as stack:
        if request.param == "cmd":
            our_config(config, "--cmd", "--", *keys)
        else:
            socket = f"unix://{tmp_path}/kp.sock"
            server = stack.enter_context(serving(tmp_path, *keys, socket=socket))
            our_config(config, "--grpc", served_address(server))
        yield stack.enter_context(pulling(suite, tmp_path, config))


def test_containerd_pulls_encrypted_image_without_parameters(
    runtime: Containerd, encrypted: str
) -> None:
    runtime.pull(encrypted)
    assert runtime.contents("motd") == {MOTD}


@pytest.mark.parametrize("runtime", ["cmd"], indirect=True)
def test_containerd_without_the_key_unpacks_nothing_and_says_which_one_is_missing(
    runtime: Containerd, encrypted: str, key: Key
) -> None:
    """containerd 2 loses the decoder's words now and then, where its output ends first."""
    key.keys_file.write_text(json.dumps({}))
    with pytest.raises(PullError, match="there is no key 'default/key/key_id1' in|wrong diff id"):
        runtime.pull(encrypted)
    assert runtime.contents("motd") == set()


def test_decoder_of_debian_13_knows_no_tls_to_a_provider() -> None:
    """It would send keys in clear, of which docs/runtimes.md warns."""
    decoder = CONTAINERD.have() / "bin/ctd-decoder"
    assert Program(decoder, "1.1.11", knows_key_providers=True).knows_grpc_tls() is False
