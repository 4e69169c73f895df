"""What the screening says of spoiled pictures, and how many good ones it sends back.

    python -m benchmarks.inputs --json out.json                # the table; needs ../shared/data, or --data DIR
    python -m benchmarks.inputs later --images 120             # kinds that the checks were not built for
    python -m benchmarks.inputs fit --data ../shared/data      # writes edge_mdda/picture/usual.json anew

A lesion that is REFER as it is and ROUTINE once spoiled would be missed. RETAKE is the right answer to what spoils it.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics as numbers
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.spoiled_later import Spoil, later_kinds
from edge_mdda import Screener
from edge_mdda.picture.colour import srgb_light, to_xyz
from edge_mdda.picture.decode import decode
from edge_mdda.picture.parsing import ADOBE_RGB, DISPLAY_P3, SRGB_PRIMARIES, Primaries
from edge_mdda.picture.quality import INDEPENDENT, USUAL, judge
from edge_mdda.picture.statistics import NAMES, statistics

SOURCES = ("ham10000", "isic-archive", "siim2020")
KEPT = 0.985  # share of a source's pictures that its mean and spread are taken from, the nearest ones
ROUNDS = 3
SIDE = 224  # pixels of the data sets
MALIGNANT = ("akiec", "bcc", "mel")


def rows(root: Path, split: str) -> Iterator[tuple[dict[str, str], Path]]:
    """Labels and files of one split."""
    with (root / "labels.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                yield row, root / "images" / f"{row['image_id']}.jpg"


def read(path: Path) -> np.ndarray:
    """(h, w, 3) uint8 RGB."""
    return decode(path.read_bytes())


def fit(data: Path) -> None:
    """Mean and inverse covariance of each source's train split, without its most unusual pictures."""
    sources = []
    for name in SOURCES:
        values = np.array([statistics(read(path)) for _, path in rows(data / name, "train")], np.float64)[
            :, INDEPENDENT
        ]
        kept = values
        for _ in range(ROUNDS):
            mean, precision = kept.mean(0), np.linalg.inv(np.cov(kept.T))
            gap = values - mean
            far = np.einsum("ij,jk,ik->i", gap, precision, gap)
            kept = values[far <= np.quantile(far, KEPT)]
        mean, precision = kept.mean(0), np.linalg.inv(np.cov(kept.T))
        rounded = [[float(f"{value:.8g}") for value in row] for row in precision]
        sources.append(
            {"name": name, "images": len(values), "mean": [float(f"{v:.8g}") for v in mean], "precision": rounded}
        )
    content = {
        "command": "python -m benchmarks.inputs fit",
        "split": "train",
        "statistics": [NAMES[k] for k in INDEPENDENT],
        "sources": sources,
    }
    USUAL.write_text(json.dumps(content) + "\n", encoding="utf-8")


def kinds() -> dict[str, Spoil]:
    """Ways to spoil a picture, by name and strength; RGB in and out."""
    import cv2

    def scaled(*gains: float) -> Spoil:
        return lambda x: (x * np.array(gains)).clip(0, 255).astype(np.uint8)

    def power(gamma: float) -> Spoil:
        return lambda x: (255 * (x / 255) ** gamma).astype(np.uint8)

    def defocus(sigma: float) -> Spoil:
        return lambda x: cv2.GaussianBlur(x, (0, 0), sigma)

    def motion(length: int, turned: bool = False) -> Spoil:
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1 / length
        return lambda x: cv2.filter2D(x, -1, kernel.T if turned else kernel)

    def grey(share: float) -> Spoil:
        return lambda x: (x * (1 - share) + share * cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None]).astype(np.uint8)

    def field(share: float) -> Spoil:
        def spoil(x: np.ndarray) -> np.ndarray:
            h, w = x.shape[:2]
            y, c = np.mgrid[:h, :w]
            inside = (y - (h - 1) / 2) ** 2 + (c - (w - 1) / 2) ** 2 <= (share * min(h, w) / 2) ** 2
            return x * inside[..., None].astype(np.uint8)

        return spoil

    def letterbox(share: float) -> Spoil:
        def spoil(x: np.ndarray) -> np.ndarray:
            bar = int(len(x) * share / 2)
            out = x.copy()
            out[:bar], out[len(x) - bar :] = 0, 0
            return out

        return spoil

    def jpeg(quality: int) -> Spoil:
        def spoil(x: np.ndarray) -> np.ndarray:
            coded = cv2.imencode(".jpg", x[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            return decode(coded.tobytes())

        return spoil

    def ordered(*channels: int) -> Spoil:
        return lambda x: np.ascontiguousarray(x[..., channels])

    def sepia(x: np.ndarray) -> np.ndarray:
        return (
            (cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None] * np.array([1.1, 0.9, 0.7])).clip(0, 255).astype(np.uint8)
        )

    return {
        **{f"brightness {b:g}": scaled(b, b, b) for b in (0.2, 0.25, 0.35, 0.5, 0.65, 0.8, 1.2, 1.5, 1.8)},
        **{f"gamma {g:g}": power(g) for g in (0.5, 2, 3)},
        **{f"defocus {s:g} px": defocus(s) for s in (1, 2, 3, 6)},
        **{f"motion {n} px": motion(n) for n in (7, 15, 25)},
        "motion down 15 px": motion(15, turned=True),
        "greyscale": grey(1), "nearly greyscale": grey(0.9), "sepia": sepia,
        "red and blue swapped": ordered(2, 1, 0), "channels turned": ordered(1, 2, 0), "negative": lambda x: 255 - x,
        "blue cast": scaled(0.6, 1, 1.3), "green cast": scaled(0.7, 1.2, 0.7), "red cast": scaled(1.2, 0.6, 0.5),
        "yellow cast": scaled(1, 1, 0.5),
        **{f"round field {round(100 * f)} %": field(f) for f in (0.5, 0.7, 0.9, 0.98)},
        **{f"letterbox {round(100 * s)} %": letterbox(s) for s in (0.1, 0.3)},
        **{f"JPEG {q}": jpeg(q) for q in (5, 10, 20, 30)},
    }  # fmt: skip


def no_lesions(seed: int = 3) -> dict[str, np.ndarray]:
    """Pictures that show no lesion, drawn; RGB."""
    import cv2

    rng = np.random.default_rng(seed)
    skin = np.full((480, 480, 3), (205, 165, 140), np.float32)
    grain = cv2.GaussianBlur(rng.normal(0, 40, skin.shape).astype(np.float32), (0, 0), 5)
    page = np.full((640, 480, 3), 245, np.uint8)
    for line in range(18):
        cv2.putText(
            page, f"Line {line} of a letter about nothing", (12, 30 + 34 * line), 0, 0.7, (15, 15, 15), 1, cv2.LINE_AA
        )
    screen = np.full((400, 600, 3), 235, np.uint8)
    screen[:40], screen[60:200, 20:280], screen[60:380, 320:580] = (40, 80, 160), (250, 250, 250), (200, 215, 230)
    stripes = np.zeros((300, 300, 3), np.uint8)
    stripes[:, np.arange(300) % 20 < 10] = (220, 180, 160)
    ramp = np.linspace(60, 240, 320)[None, :, None] * np.array([1, 0.8, 0.7]) + np.zeros((320, 1, 1))
    return {
        "plain skin": (skin + grain).clip(0, 255).astype(np.uint8),
        "page of text": page,
        "screenshot": screen,
        "noise": rng.integers(0, 256, (300, 300, 3), dtype=np.uint8),
        "stripes": stripes,
        "chequerboard": np.kron(np.indices((16, 16)).sum(0) % 2 * 255, np.ones((20, 20)))[..., None]
        .repeat(3, 2)
        .astype(np.uint8),
        "ramp": ramp.astype(np.uint8),
    }


Written = Callable[[np.ndarray], bytes]

PROPHOTO = Primaries(1.8, (0.345704, 0.358540, 0.734699, 0.265301, 0.159597, 0.840403, 0.036598, 0.000105))
"""ISO 22028-2, without the straight part of its curve."""


def in_colours(primaries: Primaries) -> Written:
    """The picture with its colours kept, but written in other levels: a PNG that says so (cHRM and gAMA, or cICP)."""

    def written(x: np.ndarray) -> bytes:
        to_other = np.linalg.solve(to_xyz(primaries.chromaticities), to_xyz(SRGB_PRIMARIES))
        light = (srgb_light(x / 255) @ to_other.T).clip(0, 1)
        if primaries.exponent is None:
            level = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
            chunks = [(b"cICP", bytes((12, 13, 0, 1)))]
        else:
            level = light ** (1 / primaries.exponent)
            places = (round(value * 100_000) for value in primaries.chromaticities)
            chunks = [(b"gAMA", struct.pack(">I", round(100_000 / primaries.exponent)))]
            chunks.append((b"cHRM", struct.pack(">8I", *places)))
        png = as_png(np.round(level * 255).astype(np.uint8))
        told = b""
        for kind, body in chunks:
            told += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        return png[:33] + told + png[33:]  # after the header

    return written


FILES = {"Adobe RGB": in_colours(ADOBE_RGB), "Display P3": in_colours(DISPLAY_P3), "ProPhoto": in_colours(PROPHOTO)}
"""Ways to write a picture as a file that shows the same, by name."""


def as_png(pixels: np.ndarray) -> bytes:
    """A PNG file's bytes."""
    import cv2

    return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()


def spoiled_rows(
    screener: Screener, data: Path, images: int, spoils: Mapping[str, Spoil], files: Mapping[str, Written]
) -> list[dict[str, object]]:
    """For each kind, what becomes of malignant lesions of the test split that are REFER as they are."""
    chosen = sorted((row["image_id"], path) for row, path in rows(data / SOURCES[0], "test") if row["dx"] in MALIGNANT)
    pictures = [read(path) for _, path in chosen[:images]]
    referred = [x for x in pictures if screener.screen(as_png(x), seed=1).advice.action == "refer"]
    table: list[dict[str, object]] = []
    for kind, spoil in spoils.items():
        said = Counter(screener.screen(as_png(spoil(x)), seed=1).advice.action for x in referred)
        table.append({"kind": kind, "n": len(referred), **{a: said[a] for a in ("routine", "retake", "refer")}})
    for kind, written in files.items():
        said = Counter(screener.screen(written(x), seed=1).advice.action for x in referred)
        table.append({"kind": kind, "n": len(referred), **{a: said[a] for a in ("routine", "retake", "refer")}})
    return table


def false_retakes(data: Path) -> list[dict[str, object]]:
    """For each source, the share of its unspoiled test pictures that a check sends back."""
    table: list[dict[str, object]] = []
    for name in SOURCES:
        failed: Counter[str] = Counter()
        total = sent_back = 0
        for _, path in rows(data / name, "test"):
            pixels = read(path)
            bad = [v.name for v in judge(pixels, pixels.shape[:2]) if not v.ok]
            failed.update(bad)
            total, sent_back = total + 1, sent_back + bool(bad)
        table.append(
            {"source": name, "n": total, "retaken": sent_back, "share": sent_back / total, "by check": dict(failed)}
        )
    return table


def benign_refers(screener: Screener, data: Path, most: int = 300) -> list[dict[str, object]]:
    """For each source, the share of benign lesions, as they are, that are REFER, and with the answer of one view less.

    ``views`` counts those that only a view in the usual light or of the whole field made REFER: what those views cost.
    """
    table: list[dict[str, object]] = []
    for name in SOURCES:
        benign = [path for row, path in rows(data / name, "test") if (row.get("dx") or row["malignant"]) not in
                  (*MALIGNANT, "1")]  # fmt: skip
        referred = by_views = 0
        for path in benign[:most]:
            answer = screener.screen(path.read_bytes(), seed=1)
            point = answer.operating_point["refer_at"]
            raw = answer.raw_probabilities or {}
            usual = max(answer.malignant, sum(raw.get(label, 0.0) for label in MALIGNANT))
            referred += answer.advice.action == "refer"
            by_views += answer.advice.action == "refer" and usual < point
        table.append({"source": name, "n": len(benign[:most]), "refer": referred, "by views": by_views})
    return table


def cost_ms(data: Path, runs: int = 60) -> float:
    """Median milliseconds of all checks on one picture of 224 x 224."""
    pixels = read(next(path for _, path in rows(data / SOURCES[0], "test")))
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        judge(pixels, pixels.shape[:2])
        times.append((time.perf_counter() - start) * 1e3)
    return numbers.median(times)


def print_kinds(table: Sequence[Mapping[str, object]]) -> None:
    """The rows of :func:`spoiled_rows` in Markdown."""
    print("| kind | n | ROUTINE | RETAKE | REFER |\n| --- | ---: | ---: | ---: | ---: |")
    for row in table:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inputs", description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="?", choices=("table", "later", "fit"), default="table", help="(%(default)s)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("--images", type=int, default=60, metavar="N", help="malignant lesions to spoil (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    args = parser.parse_args(argv)
    missing = [name for name in SOURCES if not (args.data / name / "labels.csv").exists()]
    if missing:
        parser.error(f"{args.data} has no {', '.join(missing)}; name the folder of the data sets with --data")
    if args.what == "fit":
        fit(args.data)
        return 0
    if args.what == "later":
        with Screener() as screener:
            print_kinds(spoiled_rows(screener, args.data, args.images, later_kinds(), {}))
        return 0
    with Screener() as screener:
        report: dict[str, Any] = {
            "model": screener.classifier.manifest.name,
            "spoiled": spoiled_rows(screener, args.data, args.images, kinds(), FILES),
            "no lesion": {name: screener.screen(as_png(x), seed=1).advice.action for name, x in no_lesions().items()},
            "unspoiled": false_retakes(args.data),
            "benign": benign_refers(screener, args.data),
            "cost_ms": cost_ms(args.data),
        }
    print_kinds(report["spoiled"])
    for name, action in report["no lesion"].items():
        print(f"| {name} (no lesion) | 1 | {action} |")
    for row in [*report["unspoiled"], *report["benign"]]:
        print(row)
    print(f"all checks: {report['cost_ms']:.2f} ms a picture")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
