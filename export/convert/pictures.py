"""The pictures of a conversion: those that calibrate, and others, unseen by it, that judge."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_mdda.errors import ImageError
from edge_mdda.files import IMAGE_SUFFIXES
from edge_mdda.mdda.params import PRESETS
from export.dataset import DatasetError, read_labels, read_split
from export.evaluate import purifier_seed

PRESET = "balanced"  # of the purifier
LEAST_CALIBRATION = 8  # images; fewer say nothing about the range of an activation


@dataclass(frozen=True)
class Pictures:
    """Files, and class indices where they are known."""

    paths: tuple[Path, ...]
    targets: np.ndarray | None
    name: str

    def __len__(self) -> int:
        return len(self.paths)

    def pick(self, indices: np.ndarray) -> Pictures:
        """Some of them."""
        targets = None if self.targets is None else self.targets[indices]
        return Pictures(tuple(self.paths[i] for i in indices), targets, self.name)


def is_data_set(folder: Path) -> bool:
    """Whether ``folder`` holds ``images/`` and ``labels.csv`` with splits."""
    return (folder / "labels.csv").is_file() and (folder / "images").is_dir()


def list_folder(folder: Path) -> Pictures:
    """Every image file in a folder and below it, without labels."""
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder of images")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not paths:
        raise DatasetError(f"{folder}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return Pictures(tuple(paths), None, folder.name)


def labelled(folder: Path, labels_csv: Path, labels: tuple[str, ...]) -> Pictures:
    """The images that a label file names."""
    data = read_labels(folder, labels_csv, None, labels)
    return Pictures(data.paths, data.targets, folder.name)


def split_of(folder: Path, split: str, labels: tuple[str, ...]) -> Pictures:
    """One split of a data set."""
    data = read_split(folder, split, labels)
    return Pictures(data.paths, data.targets, split)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def calibration_and_rest(folder: Path, count: int, seed: int, labels: tuple[str, ...]) -> tuple[Pictures, Pictures]:
    """``count`` random images to calibrate on (of the train split of a data set), and those left over.

    A plain folder gives at most half of its images to calibration, so that some are left to judge.
    """
    everything = split_of(folder, "train", labels) if is_data_set(folder) else list_folder(folder)
    most = len(everything) if is_data_set(folder) else len(everything) // 2
    n = min(count, most)
    if n < LEAST_CALIBRATION:
        raise DatasetError(f"{folder}: {n} images to calibrate on, at least {LEAST_CALIBRATION} are needed")
    order = np.random.default_rng(seed).permutation(len(everything))
    return everything.pick(order[:n]), everything.pick(np.sort(order[n:]))


def without(pictures: Pictures, seen: set[str]) -> Pictures:
    """Those whose content was not seen."""
    return pictures.pick(np.array([i for i, p in enumerate(pictures.paths) if digest(p) not in seen], int))


def limited(pictures: Pictures, most: int | None, seed: int) -> Pictures:
    """At most ``most`` of them, chosen at random."""
    if most is None or len(pictures) <= most:
        return pictures
    return pictures.pick(np.sort(np.random.default_rng(seed).choice(len(pictures), most, replace=False)))


def decode_to(pictures: Pictures, height: int, width: int, crop: str) -> np.ndarray:
    """``(n, height, width, 3)`` uint8 RGB through the board's own reader; DatasetError names a bad file."""
    from edge_mdda.picture.decode import decode, fit, read_bytes

    out = np.empty((len(pictures), height, width, 3), np.uint8)
    for row, path in zip(out, pictures.paths, strict=True):
        try:
            row[:] = fit(decode(read_bytes(path)), height, width, crop)
        except ImageError as error:
            raise DatasetError(f"{path}: {error}") from error
    return out


def purified(images: np.ndarray, paths: tuple[Path, ...], seed: int) -> np.ndarray:
    """The images as MDDA leaves them, each with the seed of its name."""
    from edge_mdda.mdda.purifier import Purifier

    out = np.empty_like(images)
    height, width = images.shape[1:3]
    with Purifier(height, width, PRESETS[PRESET]) as purifier:
        for row, image, path in zip(out, images, paths, strict=True):
            row[:] = purifier.purify(image, purifier_seed(path, seed))
    return out
