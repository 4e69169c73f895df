"""A real Chromium, with a fake camera that shows a drawn picture; skipped where it is not installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM, DRIVER = "chromium", "chromedriver"
WAIT_S = 60  # until a page is there: a picture may have to wait for a busy machine


def require() -> None:
    """Skip with a reason where there is no Chromium."""
    pytest.importorskip("selenium", reason="selenium is not installed")
    for name in (CHROMIUM, DRIVER):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed (Debian: chromium, chromium-driver)", allow_module_level=True)


def camera_file(folder: Path, *pictures: bytes) -> Path:
    """An MJPEG file, JPEGs one after the other, for the fake camera."""
    path = folder / "camera.mjpeg"
    path.write_bytes(b"".join(pictures) * 8)
    return path


@contextmanager
def chromium(camera: Path | None = None, *more: str) -> Iterator:
    """A headless Chromium; with a camera that shows this file, or with none."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = shutil.which(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900", *more):
        options.add_argument(argument)
    if camera is not None:
        options.add_argument("--use-fake-device-for-media-stream")
        options.add_argument("--use-fake-ui-for-media-stream")
        options.add_argument(f"--use-file-for-fake-video-capture={camera}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which(DRIVER)))
    try:
        driver.set_page_load_timeout(WAIT_S)
        yield driver
    finally:
        driver.quit()
