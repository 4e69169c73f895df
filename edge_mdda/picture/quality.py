"""Whether a picture can be judged: light, colour, focus, field of view, and whether it looks like a lesion at all.

A network answers whatever it is shown. Each check here has a name, a measured value, a threshold and one sentence that
says what to do; a picture that fails one is never called routine. The thresholds were chosen on the train and val
splits of three sources so that few of their pictures fail; ``python -m benchmarks.inputs`` prints how many, and what
the checks catch.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edge_mdda.picture.statistics import NAMES, blocking, border_share, burnt_share, light_ends, statistics

MIN_CONTRAST = 2.0  # grey levels, standard deviation; a blank or capped lens stays below
MIN_SIDE_SHARE = 0.5  # of the model's input; a smaller picture is mostly interpolation
MAX_BURNT = 0.2  # share of the pixels white in all channels
MIN_LIGHT = 98.0  # grey levels, of the lightest 5 % of a coarse view
MIN_HUE = 0.6  # log grey levels of colour that does not follow the light
MIN_RED_OVER_BLUE = -5.0  # grey levels, mean; blood makes skin redder than blue under any lamp for medical use
MIN_GREEN_OVER_RED = 0.5  # of the lightest 5 %; 0.2 % of the photographs of skin have less
MAX_BLOCKING = 1.5  # steps between JPEG's blocks over those within, less one; photographs have 0.35 at most
MIN_FINE = -1.0  # log ratio of the finest to four times coarser detail
MIN_FINE_LEAST = -1.03  # the same, across or down, whichever is less: motion blurs one direction
MAX_BORDER = 0.08  # share of the pixels that may stay black
MAX_DISTANCE = 7.8  # Mahalanobis distance to the nearest source of usual photographs
INDEPENDENT = [k for k, name in enumerate(NAMES) if name != "fine_share"]  # that one is a difference of two others
USUAL = Path(__file__).with_name("usual.json")
DIM_LIGHT = 160.0  # grey levels, as MIN_LIGHT; 90 % of the photographs that the network was trained on have more
WHITE = 255  # grey levels
BRIGHT_LIGHT = 205.0  # grey levels; 90 % of them have less
USUAL_LIGHT = 183.0  # grey levels, their median
USUAL_LIGHT_ENDS = (229.0, 162.0, 173.0)  # the same of red, green and blue
GREEN_OVER_RED, BLUE_OVER_RED = (0.54, 0.96), (0.54, 1.05)  # ratios of these in 98 % of those photographs


@dataclass(frozen=True)
class Verdict:
    """One check of one picture."""

    name: str
    value: float
    threshold: float
    ok: bool
    advice: str
    """What is wrong and what to do; empty where nothing is."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"name": self.name, "value": round(self.value, 3), "threshold": self.threshold, "ok": self.ok,
                "advice": self.advice}  # fmt: skip


@cache
def _usual() -> list[tuple[np.ndarray, np.ndarray]]:
    stored = json.loads(USUAL.read_text(encoding="utf-8"))
    return [(np.array(source["mean"]), np.array(source["precision"])) for source in stored["sources"]]


def distance(values: np.ndarray) -> float:
    """Mahalanobis distance of the statistics to the nearest of the sources that they were fitted to."""
    gaps = ((values[INDEPENDENT] - mean, precision) for mean, precision in _usual())
    return float(min(gap @ precision @ gap for gap, precision in gaps) ** 0.5)


def judge(fitted: np.ndarray, stored_size: tuple[int, ...], stored: np.ndarray | None = None) -> list[Verdict]:
    """Every check of one picture, in the order in which a failed one should be told.

    Parameters
    ----------
    fitted : ndarray
        (h, w, 3) uint8 RGB at the network's size.
    stored_size : tuple of int
        Height and width of the picture before it was brought there.
    stored : ndarray, optional
        (H, W, 3) uint8 RGB, that picture; where it is not there, traces of compression are looked for in ``fitted``.
    """
    height, width = stored_size[:2]
    side = min(height / fitted.shape[0], width / fitted.shape[1])
    planes = np.ascontiguousarray(np.moveaxis(fitted, 2, 0)).reshape(fitted.shape[2], -1)
    # std() would make two copies in float64; the squares of 8 bits fit into 16.
    variance = np.square(planes, dtype=np.uint16).mean(axis=1) - planes.mean(axis=1) ** 2
    contrast = float(np.sqrt(max(variance.max(), 0.0)))
    values = statistics(fitted)
    named = dict(zip(NAMES, map(float, values), strict=True))
    redness = named["red_green"] + named["green_blue"]
    red, green, _ = light_ends(fitted)
    border, burnt, far = border_share(fitted), burnt_share(fitted), distance(values)

    def least(name: str, value: float, threshold: float, advice: str) -> Verdict:
        ok = value >= threshold
        return Verdict(name, value, threshold, ok, "" if ok else advice)

    def most(name: str, value: float, threshold: float, advice: str) -> Verdict:
        ok = value <= threshold
        return Verdict(name, value, threshold, ok, "" if ok else advice)

    sharp = "not sharp: hold still, focus, and take it again"
    return [
        least("size", side, MIN_SIDE_SHARE, f"the picture has only {width} x {height} pixels: take a larger one"),
        least("contrast", contrast, MIN_CONTRAST,
              f"the picture is blank (contrast below {MIN_CONTRAST:g} grey levels): uncover the lens, take it again"),
        least("light", named["light_end"], MIN_LIGHT, "too dark: switch the lamp on and take it again"),
        most("burnt", burnt, MAX_BURNT, "too bright: lower the lamp or the exposure and take it again"),
        least("colour", named["log_hue"], MIN_HUE, "no colour: switch the camera to colour and take it again"),
        least("red over blue", redness, MIN_RED_OVER_BLUE,
              "the colours are not those of skin: check the white balance and the order of the channels"),
        least("cast", green / max(red, 1.0), MIN_GREEN_OVER_RED,
              "the colours have a red cast: set the white balance, change the lamp, and take it again"),
        most("border", border, MAX_BORDER, "much of the picture is black: bring the lesion into the field of view"),
        least("focus", named["fine_share"], MIN_FINE, sharp),
        least("motion", named["fine_least"], MIN_FINE_LEAST, sharp),
        most("compression", blocking(fitted if stored is None else stored), MAX_BLOCKING,
             "compressed so much that details are gone: send the original, or save it with a higher quality"),
        most("unlike", far, MAX_DISTANCE,
             "unlike the photographs of lesions that this program knows: check light, focus and what is shown"),
    ]  # fmt: skip


def lit(fitted: np.ndarray) -> list[np.ndarray]:
    """An oddly lit or coloured picture as it would look in the usual light, for one or two more looks by the network.

    A network calls a malignant lesion benign more often the darker, brighter or more oddly coloured its picture is,
    long before a person would take the picture again. A dim picture may have been exposed too little (all levels are
    multiplied) or have a steeper curve (a power), and nothing tells which: each is undone in a view of its own. None at
    all where the light is usual.
    """
    ends = light_ends(fitted)
    red, green, blue = ends
    ratios = ((green, GREEN_OVER_RED), (blue, BLUE_OVER_RED))
    if not all(low <= value / max(red, 1.0) <= high for value, (low, high) in ratios):
        return [_multiplied(fitted, np.array(USUAL_LIGHT_ENDS) / np.maximum(ends, 1.0))]
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    if DIM_LIGHT <= light <= BRIGHT_LIGHT:
        return []
    exponent = math.log(USUAL_LIGHT / WHITE) / math.log(min(max(light, 2.0), WHITE - 2.0) / WHITE)
    curve = (WHITE * (np.arange(256, dtype=np.float32) / WHITE) ** exponent).clip(0, WHITE).astype(np.uint8)
    dim = [_multiplied(fitted, np.full(3, USUAL_LIGHT / max(light, 1.0)))] if light < DIM_LIGHT else []
    return [*dim, curve[fitted]]  # what is burnt cannot be undone by less light


def _multiplied(fitted: np.ndarray, gains: np.ndarray) -> np.ndarray:
    return (fitted * gains.astype(np.float32)).clip(0, WHITE).astype(np.uint8)


def problem(verdicts: list[Verdict]) -> str | None:
    """What to tell of the first check that failed, or None."""
    return next((verdict.advice for verdict in verdicts if not verdict.ok), None)
