"""Pictures of four pages of the demo, by Chromium; nothing in them is a photograph."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from benchmarks.station.load import Client, station

FIGURES = Path(__file__).parents[1] / "figures"
WIDTH, HEIGHT = 1000, 860  # pixels


def run() -> dict[str, Any]:
    """Write the pictures; returns their sizes in bytes."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={WIDTH},{HEIGHT}"):
        options.add_argument(word)
    sizes = {}
    with station("--demo") as (_, host, _):
        first = re.findall(r"/pictures/[0-9a-f]{16}", Client(host).get("/"))[0]
        text = Client(host).get(first)
        lesion, patient = (re.findall(rf"/{kind}/[0-9a-f]{{16}}", text)[0] for kind in ("lesions", "patients"))
        pages = (("today", "/", 0), ("answer", first, 0), ("patient", patient, 330), ("lesion", lesion, 0))
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            for name, path, down in pages:
                driver.get(f"http://{host}{path}")
                driver.execute_script(f"window.scrollTo(0, {down})")
                target = FIGURES / f"station-{name}.png"
                driver.save_screenshot(str(target))
                sizes[target.name] = target.stat().st_size
        finally:
            driver.quit()
    return sizes
