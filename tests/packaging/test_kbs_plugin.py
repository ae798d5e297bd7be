"""What contrib/kbs-plugin has for those who set the plugin up."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from coco_kp.cli.kbs_plugin import command
from coco_kp.model.resource_uri import parse_key_id
from coco_kp.service.plugin_config import read_plugin_config
from tests.packaging.systemd import exposure_level, findings, read_service
from tests.replay.recording import recording
from tests.support.markdown import ROOT

FOLDER = ROOT / "contrib" / "kbs-plugin"
UNIT = FOLDER / "coco-kp-kbs-plugin.service"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
POLICIES = ("policy.rego", "policy-minimal.rego")


def backend() -> dict[str, Any]:
    (plugin,) = tomllib.loads((FOLDER / "kbs-config.toml").read_text())["plugins"]
    assert plugin["name"] == "external"
    (found,) = plugin["backends"]
    assert isinstance(found, dict)
    return found


def test_example_of_the_plugins_file_is_read_and_named_in_both_policies() -> None:
    names = read_plugin_config(FOLDER / "plugin.toml")
    assert list(names) == ["prod", "team/test"]
    for policy in POLICIES:
        assert '"prod"' in (FOLDER / policy).read_text()


def test_kbs_connects_to_where_the_plugin_listens() -> None:
    listen = next(option for option in command.params if option.name == "listen_address")
    assert isinstance(listen, click.Option)
    assert backend()["endpoint"] == f"https://{listen.default}"
    assert backend().keys() == {"name", "endpoint", "ca_cert_path", "timeout_ms"}


def test_backend_is_the_one_in_recorded_and_documented_key_ids() -> None:
    kid = parse_key_id(recording("trustee-plugin")["kid"].partition("?")[0])
    assert kid.segments[0] == backend()["name"]
    for text in (README, *((FOLDER / name).read_text() for name in ("plugin.toml",))):
        assert f"kbs+external:///{backend()['name']}/prod" in text
    for policy in POLICIES:
        assert f'"{backend()["name"]}"' in (FOLDER / policy).read_text()


@pytest.mark.parametrize("name", POLICIES)
def test_policy_denies_by_default_and_asks_for_plugin_and_whole_path(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert "\npackage policy\n" in text
    assert "\ndefault allow := false\n" in text
    assert text.count("allow if {") == 1
    assert 'data.plugin == "external"' in text
    whole = ('data["resource-path"] == [', 'count(data["resource-path"]) == 2')
    assert any(condition in text for condition in whole)


def test_unit_starts_the_plugin_with_options_that_it_has() -> None:
    (start,) = read_service(UNIT)["ExecStart"]
    program, name, *arguments = shlex.split(start)
    assert (Path(program).name, name) == ("coco-kp", "kbs-plugin")
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in arguments if word.startswith("-")} <= known
    assert "--insecure-listen" not in arguments


def test_unit_is_well_formed_and_exposes_little(tmp_path: Path) -> None:
    assert findings(UNIT, tmp_path) == []
    assert exposure_level(UNIT, tmp_path) < 2.0


def test_readme_names_each_file_that_is_there() -> None:
    files = {path.name for path in FOLDER.iterdir()} - {"README.md"}
    assert set(re.findall(r"^- `([^`]+)`:|`(policy-minimal\.rego)`", README, re.MULTILINE))
    assert {name for name in files if f"`{name}`" in README} == files
