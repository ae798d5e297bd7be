"""The site of docs/ in a real browser: it asks nobody for anything, and fits a telephone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, ViewportSize

from tests.peers.chromium import chromium
from tests.support.markdown import ROOT

pytestmark = [pytest.mark.peer, pytest.mark.full, pytest.mark.xdist_group("browser")]

PAGES: Final = sorted(
    str(path.relative_to(ROOT / "docs").with_suffix(".html")).replace("README", "index")
    for path in (ROOT / "docs").rglob("*.md")
)
PHONE: Final = ViewportSize(width=360, height=740)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport=PHONE)
    yield context.new_page()
    context.close()


def test_site_asks_for_its_own_files_alone(site: Path, page: Page) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    for name in PAGES:
        page.goto((site / name).as_uri())
    assert len(requests) > len(PAGES)
    assert [url for url in requests if not url.startswith(site.as_uri())] == []


def test_every_page_fits_a_telephone(site: Path, page: Page) -> None:
    wide = []
    for name in PAGES:
        page.goto((site / name).as_uri())
        if page.evaluate("document.documentElement.scrollWidth") > PHONE["width"]:
            wide.append(name)
    assert wide == []


def test_library_page_leads_to_each_function_that_it_names(site: Path, page: Page) -> None:
    page.goto((site / "api/index.html").as_uri())
    for verb in ("encrypt", "verify", "rewrap", "decrypt", "inspect"):
        page.get_by_role("link", name=f"{verb}_image", exact=True).first.click()
        page.wait_for_url(re.compile(rf"/api/images\.html#coco_kp\.{verb}_image$"))
        assert page.locator(f'[id="coco_kp.{verb}_image"]').is_visible()
        page.go_back()
