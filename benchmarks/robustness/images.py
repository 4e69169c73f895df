"""The photographs of a run: a split, some of each class, decoded as the board decodes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.robustness.errors import RobustnessError
from export.dataset import SIDE, LabelledImages, decode_all, read_split


@dataclass(frozen=True)
class Photographs:
    """Decoded images with their classes.

    Attributes
    ----------
    data : LabelledImages
        Paths and targets.
    images : (n, 224, 224, 3) uint8
        RGB.
    """

    data: LabelledImages
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.data)

    def first(self, per_class: int | None) -> Photographs:
        """The first images of each class; all of them for None."""
        if per_class is None:
            return self
        chosen = first_of_each_class(self.data, per_class)
        return Photographs(_subset(self.data, chosen), self.images[chosen])


def first_of_each_class(data: LabelledImages, per_class: int) -> np.ndarray:
    """Indices of the first images of each class, class by class, in the order of the label file."""
    return np.concatenate([np.flatnonzero(data.targets == c)[:per_class] for c in range(len(data.labels))])


def _subset(data: LabelledImages, chosen: np.ndarray) -> LabelledImages:
    return LabelledImages(tuple(data.paths[i] for i in chosen), data.targets[chosen], data.labels, data.name)


def read(root: Path, split: str, per_class: int | None) -> Photographs:
    """The first images of each class of a split.

    Raises
    ------
    RobustnessError
        No data set there; says where to put it.
    DatasetError
        One that cannot be read.
    """
    if not (root / "labels.csv").is_file():
        raise RobustnessError(
            f"{root}: no data set here; put HAM10000 there as images/ and labels.csv (image_id,dx,split), or name its"
            " folder with --data"
        )
    data = read_split(root, split)
    if per_class is not None:
        data = _subset(data, first_of_each_class(data, per_class))
    return Photographs(data, decode_all(data, SIDE, SIDE))
