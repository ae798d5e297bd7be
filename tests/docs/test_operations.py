"""docs/operations.md, its dashboard and its alerts: run, and held to the metrics that there are."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from coco_kp.service.metrics import Metrics
from tests.docs.reader import ContainerReader
from tests.peers.prometheus import prometheus, promtool
from tests.support import ocicrypt
from tests.support.image import tar, write_image
from tests.support.markdown import ROOT, blocks
from tests.support.patience import wait_until
from tests.support.provider import served_address, serving

DOCUMENT = "docs/operations.md"
TEXT = (ROOT / DOCUMENT).read_text(encoding="utf-8")
DASHBOARD = ROOT / "contrib" / "grafana" / "coco-kp.json"
RULES = ROOT / "contrib" / "prometheus" / "coco-kp.rules.yaml"

# Of every Prometheus client, and what Prometheus itself adds.
NOT_OURS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}


def rows(heading: str) -> dict[str, str]:
    """Return a table of the page: the first column's code, and the second column."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found: dict[str, str] = {}
    for names, second in re.findall(r"^\| (`[^|]+) \| ([^|]*)", section, flags=re.MULTILINE):
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", names), second)
    return found


def exposed() -> dict[str, set[str]]:
    """Return our metrics as they are written, with their labels."""
    metrics = Metrics("1", lambda: 0)
    for operation in ("keywrap", "keyunwrap"):
        seconds = {"seconds": 0.1}
        metrics("began", {"method": operation})
        metrics("answered", {"method": operation, "code": "OK", **seconds})
        metrics("asked", {"name": "kbs", "outcome": "ok", **seconds})
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name.startswith("coco_kp_") and not sample.name.endswith("_created"):
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def families() -> dict[str, set[str]]:
    """Return them as a reader knows them: a histogram is one."""
    found: dict[str, set[str]] = {}
    for name, labels in exposed().items():
        family = re.sub(r"_(bucket|count|sum)$", "", name)
        found.setdefault(family, set()).update(labels - {"le"})
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Yield all expressions of the dashboard and of the alerts, each with where it stands."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def test_table_of_metrics_has_those_that_there_are_with_their_labels() -> None:
    documented = {
        name: set(re.findall(r"`(\w+)`", labels))
        for name, labels in rows("Metrics").items()
        if name.startswith("coco_kp_")
    }
    assert documented == families()


def test_dashboard_and_alerts_name_metrics_and_labels_that_there_are() -> None:
    seen = set()
    for place, expression in expressions():
        named = set(re.findall(r"\b(?:coco_kp|process)_\w+|\bup\b", expression))
        assert named, place
        assert named <= exposed().keys() | NOT_OURS, place
        labels = {label for name in named for label in exposed().get(name, set())}
        grouped = re.findall(r"by \(([^)]*)\)", expression)
        used = {label.strip() for group in grouped for label in group.split(",")}
        used |= set(re.findall(r'(\w+)=~?"', expression))
        assert used <= labels | {"instance", "job"}, place
        seen |= named
    looked_at = {re.sub(r"_(bucket|count|sum)$", "", name) for name in seen - NOT_OURS}
    assert looked_at == families().keys()  # nothing is counted that nobody looks at


def test_dashboard_can_be_imported() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {
        "datasource",
        "instance",
    }
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_page_says_what_to_do_about_each_alert() -> None:
    names = {name for name in rows("Metrics") if name.startswith("CocoKp")}
    assert names == {rule["alert"] for rule in rules()}


def test_page_names_all_members_of_the_audit_log() -> None:
    schema = json.loads((ROOT / "python/coco_kp/schemas/audit.schema.json").read_text())
    assert rows("The audit log").keys() == set(schema["properties"])


@pytest.mark.peer
def test_prometheus_takes_the_rules_and_has_no_complaint_of_the_metrics(tmp_path: Path) -> None:
    assert f"SUCCESS: {len(rules())} rules found" in promtool("check", "rules", RULES)
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": f'{name}{{job="coco-kp",instance="a"{labels}}}', "values": values}
                    for name, labels, values in (
                        ("up", "", "1x20"),
                        ("coco_kp_ready", "", "1x5 0x15"),
                        ("coco_kp_audit_failures_total", "", "0x10 1x10"),
                        ("coco_kp_certificate_expiry_timestamp_seconds", "", "86400x20"),
                        ("coco_kp_calls_total", ',operation="keywrap",code="OK"', "0+90x20"),
                        (
                            "coco_kp_calls_total",
                            ',operation="keywrap",code="UNAVAILABLE"',
                            "0+10x20",
                        ),
                    )
                ],
                "alert_rule_test": [
                    {
                        "eval_time": moment,
                        "alertname": name,
                        "exp_alerts": [
                            {
                                "exp_labels": {"severity": severity, **labels},
                                "exp_annotations": {"summary": summary},
                            }
                        ]
                        if summary
                        else [],
                    }
                    for moment, name, severity, labels, summary in (
                        ("20m", "CocoKpDown", "critical", {}, ""),
                        ("5m", "CocoKpNotReady", "critical", {}, ""),
                        (
                            "15m",
                            "CocoKpNotReady",
                            "critical",
                            {"job": "coco-kp", "instance": "a"},
                            "a cannot have what it needs: its log names the KBS, store or file.",
                        ),
                        (
                            "15m",
                            "CocoKpAuditFails",
                            "critical",
                            {"job": "coco-kp", "instance": "a"},
                            "a could not record calls: disk full, or nobody reads.",
                        ),
                        (
                            "20m",
                            "CocoKpCallsFail",
                            "warning",
                            {"instance": "a"},
                            "a turns 10% of its calls away.",
                        ),
                        (
                            "0m",
                            "CocoKpCertificateEnds",
                            "warning",
                            {"job": "coco-kp", "instance": "a"},
                            "The certificate of a ends in 1d 0h 0m 0s.",
                        ),
                    )
                ],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps(test))
    promtool("test", "rules", file)


@pytest.mark.peer
def test_prometheus_scrapes_the_server_and_evaluates_all_rules(tmp_path: Path) -> None:
    with serving(tmp_path, "--metrics", "127.0.0.1:0") as server:
        found = re.search(r"http://(127\.0\.0\.1:\d+)/metrics", server.output())
        assert found
        with ocicrypt.connection(served_address(server)) as channel:
            ocicrypt.wrap(channel, "sample=true", ocicrypt.new_private_options())
        with prometheus(tmp_path, found[1], RULES) as peer:
            wait_until(lambda: peer.query('coco_kp_calls_total{code="OK"} > 0'))
            (build,) = peer.query("coco_kp_build_info")
            assert build["metric"]["job"] == "coco-kp"
            for place, expression in expressions():
                text = expression.replace("$instance", ".*").replace("$__rate_interval", "1m")
                assert peer.query(text) is not None, place
            wait_until(lambda: all(rule["health"] != "unknown" for rule in peer.rules()))
            assert [rule["name"] for rule in peer.rules() if rule["health"] != "ok"] == []
            assert [rule["name"] for rule in peer.rules() if rule["state"] == "firing"] == []


@pytest.mark.peer
def test_commands_of_operations_run_as_written(tmp_path: Path) -> None:
    write_image(tmp_path / "app", [tar({"etc/motd": os.urandom(100)})])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    first, leaked = blocks(DOCUMENT, "sh")
    # the server ends by the signal, and the shell has its exit code
    script = first.replace("127.0.0.1:9464", f"127.0.0.1:{port}")
    printed = ContainerReader(tmp_path).run(script)
    assert 'coco_kp_calls_total{code="OK",operation="keywrap"} 1.0\n' in printed
    (line,) = (tmp_path / "audit.jsonl").read_text().splitlines()
    recorded = json.loads(line)
    assert line in printed
    assert (recorded["client"], recorded["key"]) == ("unix", "file:app")
    named = ContainerReader(tmp_path).run(leaked)
    assert named.split() == [
        recorded["time"],
        "unix",
        "kbs:///default/key/app",
        recorded["layer"],
    ]
