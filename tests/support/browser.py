"""A page in Debian's Chromium: its text after the scripts have run, and what they complained about."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: apt-get install chromium)")


def open_page(url: str, folder: Path, width: int = 1400) -> tuple[str, list[str]]:
    """The page's elements as HTML, and the errors in its console; leaves page.png in the folder."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},1000",
        "--virtual-time-budget=30000",  # milliseconds for its scripts; waiting for the server does not count
        "--enable-logging=stderr",
        f"--screenshot={folder / 'page.png'}",
        "--dump-dom",
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    console = re.findall(r"CONSOLE.*", done.stderr)
    bad = re.compile("error|failed|refused|uncaught", re.IGNORECASE)
    return done.stdout, [line for line in console if bad.search(line)]
