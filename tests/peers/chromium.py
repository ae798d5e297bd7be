"""Debian's Chromium, driven by playwright, with fonts of its own and nothing of the machine's."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from .debian import CHROMIUM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

FONTS = """\
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{fonts}</dir><cachedir>{folder}/fonts</cachedir></fontconfig>
"""


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Run a browser; what it needs to write is below ``folder``."""
    had = CHROMIUM.have()
    fonts = folder / "fonts.conf"
    fonts.write_text(FONTS.format(fonts=had / "root/usr/share/fonts", folder=folder))
    (pulse,) = had.glob("root/usr/lib/*/pulseaudio")  # libpulse looks where it is installed
    env = {"FONTCONFIG_FILE": str(fonts), "HOME": str(folder), "LD_LIBRARY_PATH": str(pulse)}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=had / "bin" / CHROMIUM.programs[0],
            env={**os.environ, **env},
        )
        try:
            yield browser
        finally:
            browser.close()
