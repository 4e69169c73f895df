"""The image strips: of photographs from a run's cache, and of the drawn demo picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.robustness.errors import RobustnessError
from edge_mdda.mdda.purifier import PRESETS, Purifier
from edge_mdda.models import DEMO_IMAGE
from edge_mdda.picture.decode import decode, fit
from export.dataset import SIDE, LabelledImages, decode_all, read_split
from export.evaluate import purifier_seed

if TYPE_CHECKING:
    from torch import nn

PRESET = "balanced"
DEMO_SEED = 7
DEMO_ATTACK, DEMO_EPS = "difgsm", 4.0  # grey levels
SHOWN_ATTACK = "gray/difgsm"
PANEL = 224  # pixels a side of a picture in a strip
DEMO_PANEL = 160
GAIN = 16  # of the perturbation
STRIP_HEAD, STRIP_GAP = 20, 6  # pixels
STRIP_TITLES = ("clean", "attacked", f"perturbation x {GAIN}", "purified")
STRIP_ROWS = 3  # photographs


def strip(clean: np.ndarray, attacked: np.ndarray, purified: np.ndarray, side: int = PANEL) -> np.ndarray:
    """Rows of clean, attacked, perturbation x 16 and purified picture.

    Parameters
    ----------
    clean, attacked, purified : (n, h, w, 3) uint8
        RGB.
    side : int
        Pixels of a panel's side; the perturbation is amplified before it is shrunk.

    Returns
    -------
    (height, width, 3) uint8
    """
    import cv2

    change = np.clip(128 + GAIN * (attacked.astype(int) - clean), 0, 255).astype(np.uint8)
    step = side + STRIP_GAP
    canvas = np.full((STRIP_HEAD + len(clean) * step, STRIP_GAP + 4 * step, 3), 255, np.uint8)
    for column, (title, images) in enumerate(zip(STRIP_TITLES, (clean, attacked, change, purified), strict=True)):
        left = STRIP_GAP + column * step
        cv2.putText(canvas, title, (left, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (40, 40, 40), 1, cv2.LINE_AA)
        for n, image in enumerate(images):
            small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) if image.shape[0] != side else image
            canvas[STRIP_HEAD + n * step : STRIP_HEAD + n * step + side, left : left + side] = small
    return canvas


def purified(images: np.ndarray, seeds: list[int]) -> np.ndarray:
    """Images ``(n, 224, 224, 3)`` uint8 through the preset ``balanced``."""
    with Purifier(SIDE, SIDE, PRESETS[PRESET]) as purifier:
        return np.stack([purifier.purify(image, seed) for image, seed in zip(images, seeds, strict=True)])


def attacked_demo(network: nn.Module) -> np.ndarray:
    """The strip of the drawn picture: DI-FGSM at 4/255 away from the class that ``network`` sees in it.

    Parameters
    ----------
    network : nn.Module
        Logits of ``(n, 3, 224, 224)`` float RGB in 0..255, differentiable.
    """
    import torch

    from benchmarks.robustness.attacks import ATTACKS, attack_images, to_tensor
    from benchmarks.robustness.cache import key_of

    clean = fit(decode(DEMO_IMAGE.read_bytes()), SIDE, SIDE, "squeeze")[None]
    with torch.no_grad():
        seen = network(to_tensor(clean)).argmax(1).numpy()
    attack = ATTACKS[DEMO_ATTACK]
    key = key_of(seed=DEMO_SEED)
    attacked = attack_images(attack, network, clean, seen, attack.parameters(DEMO_EPS, False), key)
    return strip(clean, attacked, purified(attacked, [DEMO_SEED]), DEMO_PANEL)


def demo() -> np.ndarray:
    """The same, against the shipped network."""
    from benchmarks.robustness.networks import deployed

    return attacked_demo(deployed("standard", "cpu").twin)


def chosen_set(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The set of images to show: of the weakest gray-box DI-FGSM in the JSON.

    Raises
    ------
    RobustnessError
        There is none.
    """
    names = [name for name in content.get("sets", {}) if f"/{SHOWN_ATTACK}/" in name]
    if not names:
        raise RobustnessError(f"the JSON names no images of {SHOWN_ATTACK}; run that attack first")
    return content["sets"][min(names, key=lambda name: float(name.rsplit("/", 1)[1]))]


def photographs(content: Mapping[str, Any], data_root: Path, cache: Path | None) -> np.ndarray:
    """A strip of three photographs of different classes, their attacked versions taken from the run's cache.

    Raises
    ------
    RobustnessError
        The JSON, the data set and the cache do not belong together.
    """
    from benchmarks.robustness.cache import default_folder, load_images

    shown = chosen_set(content)
    split = read_split(data_root, str(content.get("split", "test")))
    by_name = {path.stem: n for n, path in enumerate(split.paths)}
    missing = [name for name in shown["images"] if name not in by_name]
    if missing:
        raise RobustnessError(f"{data_root}: no image '{missing[0]}' of the run in split '{split.name}'; check --data")
    rows = np.array([by_name[name] for name in shown["images"]])
    data = LabelledImages(tuple(split.paths[n] for n in rows), split.targets[rows], split.labels, split.name)
    clean = decode_all(data, SIDE, SIDE)
    folder = cache or default_folder()
    attacked = load_images(folder, shown["files"], clean)
    if attacked is None:
        raise RobustnessError(f"{folder}: the run's attacked images are not there; run it again, or name --cache")
    firsts = [int(np.flatnonzero(data.targets == c)[0]) for c in np.unique(data.targets)]
    chosen = [firsts[n] for n in np.linspace(0, len(firsts) - 1, min(STRIP_ROWS, len(firsts))).astype(int)]
    seeds = [purifier_seed(data.paths[n], int(content.get("seed", 0))) for n in chosen]
    return strip(clean[chosen], attacked[chosen], purified(attacked[chosen], seeds))
