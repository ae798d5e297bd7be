"""The real Prometheus, in a folder of its own, and promtool."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .daemon import daemon
from .debian import PROMETHEUS

if TYPE_CHECKING:
    from collections.abc import Iterator


def promtool(*arguments: str | Path) -> str:
    """Return what promtool prints; it must succeed."""
    line = [PROMETHEUS.have() / "bin" / "promtool", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Prometheus:
    """One that scrapes."""

    url: str

    def query(self, expression: str) -> list[Any]:
        """Return the result of an expression, at this moment."""
        return list(self._get("query", query=expression)["result"])

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules with their health."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **parameters: str) -> Any:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url) as response:  # noqa: S310 (our own)
            return json.load(response)["data"]


@contextmanager
def prometheus(folder: Path, target: str, rules: Path) -> Iterator[Prometheus]:
    """Run Prometheus, with the job ``coco-kp`` scraping ``target`` each second."""
    config = folder / "prometheus.yml"
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "coco-kp", "static_configs": [{"targets": [target]}]}],
    }
    config.write_text(json.dumps(settings))  # which is YAML
    line: list[str | Path] = [
        PROMETHEUS.have() / "bin" / "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    with daemon(line, folder / "prometheus.log") as running:
        url = f"http://{running.address()}"
        running.wait_until(lambda: _is_ready(url), "be ready")
        yield Prometheus(url)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready"):  # noqa: S310 (our own)
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False
