"""The commands of docs/keys.md, run as they stand, with an HSM and emulators of AWS and Vault."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from coco_kp.keys.reference import KEK_FROM_HINT, WRAP_WITH_HINT
from coco_kp.keys.stores.opening import PLUGINS
from tests.docs.reader import ContainerReader
from tests.peers.debian import SOFTHSM
from tests.peers.softhsm import PIN, SoftHsm
from tests.sim.kbs import ADMIN_TOKEN, simulated_kbs
from tests.sim.transit import TransitKey
from tests.sim.vault import ROOT_TOKEN, SimulatedVault
from tests.support.image import Image, tar, write_image
from tests.support.kbs_plugin import plugin_address, plugin_process
from tests.support.markdown import ROOT, blocks
from tests.support.plugins import install_example

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.aws import RunningAws

DOCUMENT = "docs/keys.md"
TEXT = (ROOT / DOCUMENT).read_text(encoding="utf-8")
SURROUNDINGS = ("AWS_", "COCO_KP_", "MY_KMS", "PYTHONPATH", "SOFTHSM2_", "VAULT_")


@pytest.fixture
def surroundings(
    local_kms: RunningAws,
    moto: RunningAws,
    vault: SimulatedVault,
    softhsm: SoftHsm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Everywhere that the page's keys are; KMS and Secrets Manager are two emulators'."""
    with closing(local_kms.kms()) as kms:
        other = kms.create_key()["KeyMetadata"]["KeyId"]
        kms.create_alias(AliasName="alias/next", TargetKeyId=other)
    vault.transit.keys["coco-kp"] = TransitKey()
    (tmp_path / "my-kms").mkdir()
    (tmp_path / "my-kms/app").write_bytes(os.urandom(32))
    for name, value in {
        "AWS_ENDPOINT_URL": local_kms.endpoint,
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": moto.endpoint,
        "VAULT_TOKEN": ROOT_TOKEN,
        "COCO_KP_PKCS11_MODULE": str(softhsm.module),
        "COCO_KP_PKCS11_PIN": PIN,
        "COCO_KP_ADMIN_TOKEN": ADMIN_TOKEN,
        "MY_KMS": str(tmp_path / "my-kms"),
        "PYTHONPATH": str(install_example(DOCUMENT, tmp_path / "site", PLUGINS.name)),
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.peer
@pytest.mark.usefixtures("surroundings")
def test_commands_of_page_on_keys_run_as_written(tmp_path: Path) -> None:
    image = write_image(tmp_path / "app", [tar({"motd": b"hello"}), tar({"data": bytes(100_000)})])
    found = {name: value for name, value in os.environ.items() if name.startswith(SURROUNDINGS)}
    with simulated_kbs() as kbs, ExitStack() as stack:
        programs = [SOFTHSM.have() / "bin"]
        reader = ContainerReader(tmp_path, programs=programs, KBS=kbs.url, **found)
        for block in blocks(DOCUMENT, "sh"):
            reader.run(block)
            if "> plugin.toml" in block:
                plugin = stack.enter_context(
                    plugin_process(tmp_path, "--config", str(tmp_path / "plugin.toml"))
                )
                external = kbs.with_external("coco-kp", f"http://{plugin_address(plugin)}")
                stack.callback(external.close)
        for name in ("transit", "token", "prod-skopeo", "vault-2", "vault-skopeo", "exec", "aws"):
            assert all(layer.encrypted for layer in Image(tmp_path / f"app-{name}").layers), name
        for name in ("transit", "token", "prod-skopeo", "prod"):
            reader.run(f"coco-kp decrypt oci:app-{name} oci:{name} --kbc cc::{kbs.url}")
            assert Image(tmp_path / name).layers == image.layers
    assert Image(tmp_path / "app-prod-opened").layers == image.layers
    assert len(kbs.resources) == 2, "those that it was given: a wrapped one never is"


def test_page_on_keys_quotes_messages_that_there_are() -> None:
    _, _, section = TEXT.partition("## Errors")
    rows = re.findall(r"^\| (`.+?) \|", section.partition("\n## ")[0], re.MULTILINE)
    quoted = [part for row in rows for part in re.findall(r"`([^`]+)`", row)]
    said = " ".join(
        re.sub(r'"\s*f?"', "", path.read_text(encoding="utf-8"))
        for path in (ROOT / "python/coco_kp/keys").rglob("*.py")
    )
    fragments = [part.strip(" :") for text in quoted for part in text.split("…")]
    assert len(rows) > 10
    assert [fragment for fragment in fragments if fragment not in said] == []


def test_page_on_keys_has_every_scheme_of_reference() -> None:
    schemes = re.findall(r"\b[a-z][a-z0-9-]*:", f"{KEK_FROM_HINT} {WRAP_WITH_HINT}")
    assert [scheme for scheme in schemes if scheme not in TEXT] == []
    assert {"file:", "exec:", "vault:", "awskms:"} <= set(schemes)
