"""``python -m benchmarks.picture``: the README's picture of one screening, made from the drawn demo image."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from edge_mdda import NOTICE, Screener
from edge_mdda.models import DEMO_IMAGE
from edge_mdda.picture.decode import decode, fit, write_png

OUT = Path(__file__).parent / "figures" / "screening.png"
SEED = 7
PANEL = 224  # pixels a side
GAP, HEAD, FOOT = 12, 26, 26  # pixels
BARS_WIDTH = 330
GAIN = 8  # of the difference
INK, PALE, BAR, WARN = (40, 40, 40), (225, 225, 225), (70, 120, 180), (190, 70, 60)


def _text(canvas: np.ndarray, text: str, x: int, y: int, scale: float = 0.42) -> None:
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)


def picture() -> np.ndarray:
    """The image, what the purifier left, their difference and the class bars, as uint8 RGB."""
    with Screener() as screener:
        result = screener.screen(DEMO_IMAGE, SEED)
        manifest = screener.classifier.manifest
    assert result.purified is not None and result.purify is not None
    raw = fit(decode(DEMO_IMAGE.read_bytes()), manifest.height, manifest.width, manifest.crop)
    difference = np.clip(128 + GAIN * (result.purified.astype(int) - raw), 0, 255).astype(np.uint8)
    width = GAP + 3 * (PANEL + GAP) + BARS_WIDTH
    canvas = np.full((HEAD + PANEL + FOOT, width, 3), 255, np.uint8)
    titles = ("image (drawn)", "purified", f"difference x {GAIN}")
    for n, (title, panel) in enumerate(zip(titles, (raw, result.purified, difference), strict=True)):
        left = GAP + n * (PANEL + GAP)
        canvas[HEAD : HEAD + PANEL, left : left + PANEL] = panel
        _text(canvas, title, left, HEAD - 8)
    left = GAP + 3 * (PANEL + GAP)
    full = BARS_WIDTH - 130
    _text(canvas, "probability, purified view", left, HEAD - 8)
    for n, (label, share) in enumerate(result.probabilities.items()):
        y = HEAD + 8 + n * 22
        cv2.rectangle(canvas, (left + 50, y), (left + 50 + full, y + 13), PALE, -1)
        colour = WARN if label in manifest.malignant else BAR
        cv2.rectangle(canvas, (left + 50, y), (left + 50 + round(full * share), y + 13), colour, -1)
        _text(canvas, label, left, y + 11)
        _text(canvas, f"{share:.1%}", left + 58 + full, y + 11)
    below = HEAD + 8 + len(result.probabilities) * 22 + 12
    _text(canvas, f"malignant share (red) {result.malignant:.1%}", left, below)
    _text(canvas, f"views disagree by {result.disagreement:.3f} bit", left, below + 18)
    _text(canvas, f"advice: {result.advice.action}", left, below + 36)
    _text(canvas, f"{NOTICE} Preset {result.purify['preset']}, seed {SEED}.", GAP, HEAD + PANEL + 18, 0.4)
    return canvas


def main() -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picture", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help="(%(default)s)")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_png(args.out, picture())
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
