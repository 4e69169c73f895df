"""How long a search and the pages take with 100,000 pictures in the database."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.station.load import percentiles
from edge_mdda.station import charts, findings
from edge_mdda.station.store import Store

LESIONS, PICTURES = 2, 2  # of each patient, of each lesion
DAYS = 1000
ROUNDS = 200
FIRST = ("Ann", "Bo", "Cleo", "Dora", "Eli", "Fay", "Gus", "Hana", "Ivo", "June")
LAST = ("Abel", "Berg", "Cole", "Diaz", "Eng", "Fox", "Gray", "Holm", "Imai", "Jones")


def fill(store: Store, pictures: int, rng: random.Random) -> None:
    """Rows as a clinic would have them after years; the files themselves are not there."""
    with store.writing() as w:
        made = {"made_at": w.at, "made_by": "bench"}
        for number in range(pictures // (LESIONS * PICTURES)):
            patient = f"{number:016x}"
            name = f"{rng.choice(FIRST)} {rng.choice(LAST)}{number % 97}"
            w.insert("patients", id=patient, own_id=f"P-{number}", name=name, sex="unknown", **made)
            day = f"{2020 + number % DAYS // 336}-{number % DAYS // 28 % 12 + 1:02}-{number % 28 + 1:02}"
            w.insert("visits", id=patient, patient=patient, day=day, clock_sure=1, **made)
            for part in range(LESIONS * PICTURES):
                lesion, picture = f"{number:013x}{part // PICTURES:03x}", f"{number:013x}{part:03x}"
                if part % PICTURES == 0:
                    w.insert("lesions", id=lesion, patient=patient, number=part, site="face-front", **made)
                digest = f"{number:060x}{part:04x}"
                w.insert("files", sha256=digest, bytes=1, media_type="image/jpeg")
                w.insert("pictures", id=picture, lesion=lesion, visit=patient, file=digest, source="drawn", **made)
                w.insert(
                    "screenings", id=picture, picture=picture, answer="{}", advice=rng.choice(("refer", "routine")),
                    malignant=0.1, model="m", model_sha256="0", version="0", names="{}", raw_view=digest, **made,
                )  # fmt: skip


def timed(what: Callable[[], object]) -> dict[str, float]:
    """Percentiles of ``ROUNDS`` calls."""
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - begin)
    return percentiles(seconds)


def run(pictures: int, seed: int) -> dict[str, Any]:
    """Times of searches by number and by name, of a day's list, and of the start."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="edge-mdda-search-") as place:
        store = Store(Path(place) / "data")
        fill(store, pictures, rng)
        store.close()
        begin = time.perf_counter()
        store = Store(Path(place) / "data")
        start = time.perf_counter() - begin
        patients = pictures // (LESIONS * PICTURES)
        found = {
            "pictures": pictures,
            "start_s": round(start, 2),
            "by_number": timed(lambda: charts.find_patients(store, f"P-{rng.randrange(patients)}")),
            "by_first_name": timed(lambda: charts.find_patients(store, rng.choice(FIRST))),
            "by_last_name": timed(lambda: charts.find_patients(store, f"{rng.choice(LAST)}{rng.randrange(97)}")),
            "by_nothing_known": timed(lambda: charts.find_patients(store, "zzz")),
            "a_days_list": timed(lambda: findings.pictures_on(store, f"2021-{rng.randint(1, 12):02}-05")),
            "first_page": timed(lambda: findings.left_open(store, "2026-01-01")),
            "a_lesion": timed(lambda: findings.pictures_of(store, f"{rng.randrange(patients):013x}000")),
        }
        store.close()
        return found
