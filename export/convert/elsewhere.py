"""Pictures of other clinics, on which a referral threshold must hold as well.

Such a source may know less than the classes: malignant or not is enough.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_mdda.classifier import Classifier
from export.calibration import Elsewhere, Views
from export.convert import parity
from export.convert.pictures import Pictures, decode_to, purified
from export.dataset import DatasetError

CHOOSING, JUDGING = "val", "test"
IMAGE_SUFFIX = ".jpg"


@dataclass(frozen=True)
class Split:
    """Both views of labelled pictures."""

    raw: np.ndarray
    purified: np.ndarray
    positive: np.ndarray


@dataclass(frozen=True)
class Source:
    """The splits of one source that are there."""

    name: str
    splits: dict[str, Split]


def read(folder: Path, size: tuple[int, int, str], malignant: frozenset[str], seed: int) -> Source:
    """Both views of a source's ``val`` and ``test`` pictures.

    Parameters
    ----------
    folder : Path
        ``images/`` and ``labels.csv`` with ``image_id``, ``split`` and ``dx`` or ``malignant`` (0 or 1).
    size : tuple
        Height, width and crop of the network.
    malignant : frozenset of str
        The classes that count as malignant.
    seed : int
        Of the purifier.

    Raises
    ------
    DatasetError
        No labels, or none for ``val`` or ``test``.
    """
    table = folder / "labels.csv"
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DatasetError(f"{table}: cannot be read ({error.strerror})") from error
    splits = {}
    for split in (CHOOSING, JUDGING):
        chosen = [row for row in rows if row.get("split") == split]
        if not chosen:
            continue
        paths = tuple(folder / "images" / f"{row['image_id']}{IMAGE_SUFFIX}" for row in chosen)
        raw = decode_to(Pictures(paths, None, split), *size)
        positive = np.array([row["dx"] in malignant if "dx" in row else row.get("malignant") == "1" for row in chosen])
        splits[split] = Split(raw, purified(raw, paths, seed), positive)
    if not splits:
        raise DatasetError(f"{table}: names no picture of the splits {CHOOSING} or {JUDGING}")
    return Source(folder.name, splits)


def answer(source: Source, classifier: Classifier, columns: tuple[int, ...]) -> Elsewhere:
    """What a file says of a source's pictures."""

    def views(split: Split) -> Views:
        targets = np.where(split.positive, columns[0], -1)  # the class is not asked for
        raw, purified_ = (parity.predict(classifier, images) for images in (split.raw, split.purified))
        return Views(raw, purified_, targets, columns)

    return Elsewhere(source.name, {name: views(split) for name, split in source.splits.items()})
