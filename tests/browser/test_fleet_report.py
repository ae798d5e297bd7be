"""The fleet report in a real browser: Debian's Chromium, driven by playwright."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from coco_kp.fleet.lines import Failure, LayerCounts, ResultLine, read_plan
from coco_kp.fleet.page import page as report_page
from coco_kp.fleet.report import Image, Key, Report
from coco_kp.model.reference import RegistryReference
from tests.peers.chromium import chromium
from tests.support.fleet import KID, SKIPPED_BASE, done, failed, look_line, plan_line

pytestmark = [pytest.mark.peer, pytest.mark.full, pytest.mark.xdist_group("browser")]

REMOTE = Failure(6, "new.example did not answer")
OTHER = "kbs:///default/key/other"
HOSTILE = "<img/src=x/onerror=alert(1)></script><script>alert(2)</script>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser")) as running:
        yield running


class Opened:
    """A report that is open in a browser, and whatever that complained about or asked for."""

    def __init__(self, browser: Browser, folder: Path, results: list[ResultLine]) -> None:
        names = {kid for result in results for kid in result.recipients}
        counted = [
            (kid, [result for result in results if kid in result.recipients]) for kid in names
        ]
        report = Report(
            "2026-11-26T12:00:00Z",
            len(results),
            tuple(map(Image, results)),
            tuple(Key(kid, len(with_it), with_it[0].finished) for kid, with_it in counted),
            *(1.0, 2, 3),
        )
        self.path = folder / "report.html"
        self.path.write_text(report_page(report.document()))
        self.complaints: list[str] = []
        self.requests: list[str] = []
        context = browser.new_context(accept_downloads=True)
        self.page: Page = context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(self.path.as_uri())

    def images(self) -> list[str]:
        """Return the names of the images that are shown, in their order."""
        return self.page.locator("#images tbody th").all_inner_texts()

    def sort_by(self, title: str) -> str | None:
        """Click a heading, and return how its column is sorted now."""
        heading = self.page.locator("#images thead th", has_text=title)
        heading.get_by_role("button").click()
        return heading.get_attribute("aria-sort")

    def count(self) -> str:
        """Return what is said of how many are shown."""
        return self.page.inner_text("#count")


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    results = [
        done(plan_line("team/app"), size=1024),
        done(plan_line("team/base", options=SKIPPED_BASE), layers=LayerCounts(1, 0, 1), size=4096),
        done(plan_line("team/cache"), recipients=(OTHER, KID), size=2048),
        failed(plan_line("team/db"), REMOTE),
        failed(plan_line("team/east"), Failure(7, "a layer is foreign", "--allow-foreign")),
    ]
    one = Opened(browser, tmp_path, results)
    yield one
    assert one.complaints == []
    assert one.requests == [one.path.as_uri()]
    one.page.context.close()


def test_page_says_first_what_can_be_read(opened: Opened) -> None:
    assert opened.page.inner_text("h1") == (
        "1 of 5 images can be read, wholly or in part; 2 not known"
    )


def test_headings_sort_up_and_down_and_say_so(opened: Opened) -> None:
    assert opened.images()[0] == "new.example/team/app:1"
    assert opened.sort_by("Image") == "descending"
    assert opened.images()[0] == "new.example/team/east:1"
    assert opened.sort_by("Bytes") == "descending"
    assert [name[17:] for name in opened.images()[:3]] == ["base:1", "cache:1", "app:1"]
    assert opened.sort_by("Bytes") == "ascending"
    assert opened.images()[-1] == "new.example/team/base:1"
    sorted_by = opened.page.locator("#images thead [aria-sort=ascending]")
    assert sorted_by.all_inner_texts() == ["Bytes"]


def test_words_standing_and_outcome_filter_together(opened: Opened) -> None:
    opened.page.fill("#words", "TEAM other")
    opened.page.get_by_text("1 of 5 images", exact=True).wait_for()
    assert opened.images() == ["new.example/team/cache:1"]
    opened.page.select_option("#outcome", "failed")
    assert opened.count() == "0 of 5 images"
    opened.page.get_by_role("button", name="Show all").click()
    assert opened.count() == "5 of 5 images"
    assert opened.page.input_value("#words") == ""
    partly = opened.page.get_by_role("button", name="partly readable")
    partly.click()
    assert opened.images() == ["new.example/team/base:1"]
    assert partly.get_attribute("aria-pressed") == "true"
    partly.click()
    assert opened.count() == "5 of 5 images"


def test_finding_leads_to_its_images_and_those_to_what_helps(opened: Opened) -> None:
    opened.page.get_by_role("button", name="a layer is foreign").click()
    assert opened.images() == ["new.example/team/east:1"]
    assert opened.page.inner_text("#chosen") == "Images with: a layer is foreign"
    name = opened.page.get_by_role("button", name="new.example/team/east:1")
    name.click()
    assert name.get_attribute("aria-expanded") == "true"
    details = opened.page.inner_text("#images .details")
    assert "a layer is foreign (exit code 7)" in details
    assert "--allow-foreign" in details
    assert "&& coco-kp fleet run again.jsonl" in details
    name.click()
    assert opened.page.locator("#images .details").count() == 0


def test_key_leads_to_the_images_that_are_encrypted_for_it(opened: Opened) -> None:
    opened.page.locator("#keys").get_by_role("button", name=OTHER).click()
    assert opened.images() == ["new.example/team/cache:1"]


def test_all_can_be_done_by_keyboard_with_the_focus_in_sight(opened: Opened) -> None:
    page = opened.page
    page.locator("#words").focus()
    page.keyboard.press("Tab")
    page.keyboard.type("partly")
    assert opened.images() == ["new.example/team/base:1"]
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('tbody') !== null"):
            break
    page.keyboard.press("Enter")
    assert page.locator("#images .details").count() == 1
    width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert width == "3px"


def test_plan_of_what_failed_and_is_shown_is_saved(opened: Opened, tmp_path: Path) -> None:
    opened.page.select_option("#outcome", "failed")
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name="Save a plan").click()
    download.value.save_as(tmp_path / "again.jsonl")
    assert list(read_plan(tmp_path / "again.jsonl")) == [plan_line("team/db")]
    opened.requests = [url for url in opened.requests if not url.startswith("blob:")]
    opened.page.select_option("#outcome", "done")
    assert opened.page.get_by_role("button", name="Save a plan").is_disabled()


def test_words_of_others_stay_text(browser: Browser, tmp_path: Path) -> None:
    hostile = replace(look_line(), source=RegistryReference("registry.example", HOSTILE, "1"))
    result = done(hostile, recipients=(HOSTILE,), findings=(Failure(7, HOSTILE),))
    opened = Opened(browser, tmp_path, [result])
    assert opened.images() == [f"registry.example/{HOSTILE}:1"]
    opened.page.locator("#keys").get_by_role("button").last.click()
    opened.page.locator("#images tbody th button").click()
    assert HOSTILE in opened.page.inner_text("#images .details")
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("script").count() == 2
    assert opened.complaints == []
    assert opened.requests == [opened.path.as_uri()]
    opened.page.context.close()


def test_policy_of_the_page_lets_nothing_else_run_or_load(browser: Browser, tmp_path: Path) -> None:
    opened = Opened(browser, tmp_path, [done(plan_line())])
    failed: list[tuple[str, str | None]] = []
    opened.page.on("requestfailed", lambda request: failed.append((request.url, request.failure)))
    opened.page.evaluate("""() => {
        const script = document.createElement('script');
        script.textContent = 'document.title = "ran"';
        document.body.append(script);
        document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/'}));
    }""")
    opened.page.wait_for_timeout(0)
    assert opened.page.title() != "ran"
    assert len(opened.complaints) == 2
    assert all("Content Security Policy" in complaint for complaint in opened.complaints)
    assert failed == [("http://127.0.0.1:9/", "csp")]
    opened.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1160, 1280])
def test_nothing_runs_out_of_the_window(
    browser: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    kid = f"kbs:///default/key/{'long' * 30}"
    long = done(plan_line(f"team/{'a-long-name-' * 10}app"), recipients=(kid,))
    results = [long, failed(plan_line(), Failure(6, "x" * 500)), done(plan_line("team/db"))]
    opened = Opened(browser, tmp_path, results)
    opened.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    opened.page.set_viewport_size({"width": width, "height": 800})
    for name in opened.page.locator("#images tbody th button").all():
        name.click()
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 23, 28)")
    opened.page.context.close()


def test_ten_thousand_images_are_drawn_a_hundred_at_a_time_and_all_on_paper(
    browser: Browser, tmp_path: Path
) -> None:
    results = [done(plan_line(f"team/app{number:05}"), size=number) for number in range(10_000)]
    opened = Opened(browser, tmp_path, results)
    assert len(opened.images()) == 100
    assert opened.sort_by("Bytes") == "descending"
    assert opened.images()[0] == "new.example/team/app09999:1"
    opened.page.get_by_role("button", name="Show 100 more of 9,900").click()
    assert len(opened.images()) == 200
    opened.page.fill("#words", "app0123")
    opened.page.get_by_text("10 of 10,000 images", exact=True).wait_for()
    opened.page.get_by_role("button", name="Show all").click()
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.page.locator("#images tbody tr").count() == 10_000
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.page.locator("#images tbody tr").count() == 100
    assert opened.complaints == []
    opened.page.context.close()


def test_paper_has_tables_and_no_controls(opened: Opened) -> None:
    opened.page.emulate_media(media="print")
    assert not opened.page.locator("#filter").is_visible()
    assert not opened.page.locator("#save").is_visible()
    assert opened.page.locator("#images thead").is_visible()
    assert opened.page.pdf(format="A4").startswith(b"%PDF")
