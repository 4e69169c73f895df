"""The image strips: of photographs from a run's cache, and of the drawn demo picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.robustness import figures
from benchmarks.robustness.errors import RobustnessError
from edge_mdda.cli import DEMO_IMAGE
from edge_mdda.imaging import decode, fit
from edge_mdda.mdda import PRESETS, Purifier
from export.dataset import SIDE, LabelledImages, decode_all, read_split
from export.evaluate import purifier_seed

if TYPE_CHECKING:
    from torch import nn

PRESET = "balanced"
DEMO_SEED = 7
DEMO_ATTACK, DEMO_EPS = "difgsm", 4.0  # grey levels
SHOWN_ATTACK = "gray/difgsm"


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

    clean = fit(decode(DEMO_IMAGE), SIDE, SIDE, "squeeze")[None]
    with torch.no_grad():
        seen = network(to_tensor(clean)).argmax(1).numpy()
    attack = ATTACKS[DEMO_ATTACK]
    key = key_of(seed=DEMO_SEED)
    attacked = attack_images(attack, network, clean, seen, attack.parameters(DEMO_EPS, False), key)
    return figures.strip(clean, attacked, purified(attacked, [DEMO_SEED]), figures.DEMO_PANEL)


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
    chosen = [firsts[n] for n in np.linspace(0, len(firsts) - 1, min(figures.STRIP_ROWS, len(firsts))).astype(int)]
    seeds = [purifier_seed(data.paths[n], int(content.get("seed", 0))) for n in chosen]
    return figures.strip(clean[chosen], attacked[chosen], purified(attacked[chosen], seeds))
