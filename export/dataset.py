"""Labelled folders of dermatoscopic images: the HAM10000 classes, label files and splits.

References
----------
P. Tschandl, C. Rosendahl, H. Kittler, "The HAM10000 dataset, a large collection of multi-source
dermatoscopic images of common pigmented skin lesions", Scientific Data 5, 180161 (2018).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_mdda.errors import EdgeMddaError, ImageError
from edge_mdda.files import IMAGE_SUFFIXES

CLASSES = {
    "akiec": "actinic keratosis or intraepithelial carcinoma",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic naevus",
    "vasc": "vascular lesion",
}
"""The seven diagnoses of HAM10000 in the order of the network's outputs."""

MALIGNANT = ("akiec", "bcc", "mel")
SPLITS = ("train", "val", "test")
SIDE = 224  # pixels; the data set's, and the size at which Lite0 was pretrained


class DatasetError(EdgeMddaError):
    """A label file or image folder that cannot be used; the message says what to change."""


@dataclass(frozen=True)
class LabelledImages:
    """Paths and class indices of one set of images; nothing is decoded yet."""

    paths: tuple[Path, ...]
    targets: np.ndarray
    """(n,) int64 indices into ``labels``."""
    labels: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.paths)

    def class_counts(self) -> np.ndarray:
        """(len(labels),) int64 number of images of each class."""
        return np.bincount(self.targets, minlength=len(self.labels))


def read_labels(
    images: Path,
    labels_csv: Path,
    split: str | None = None,
    classes: tuple[str, ...] = tuple(CLASSES),
) -> LabelledImages:
    """Match a label file (columns ``image_id, dx`` and, for a split, ``split``) with a folder of images.

    Parameters
    ----------
    images : Path
        Folder holding ``<image_id>.jpg`` (or another common suffix).
    labels_csv : Path
        The label file.
    split : str, optional
        Keep only the rows of this split.
    classes : tuple of str
        The network's labels, in its order.

    Raises
    ------
    DatasetError
        Missing folder, file or column, unknown class, image not found, or an empty selection.
    """
    if not images.is_dir():
        raise DatasetError(f"{images}: no such folder of images")
    try:
        with labels_csv.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{labels_csv}: cannot read labels ({error})") from error
    needed = {"image_id", "dx"} | ({"split"} if split else set())
    missing = needed - set(rows[0] if rows else ())
    if missing:
        raise DatasetError(f"{labels_csv}: column(s) {', '.join(sorted(missing))} missing")
    by_stem = {p.stem: p for p in sorted(images.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES}
    paths, targets = [], []
    for row in rows:
        if split and row["split"] != split:
            continue
        if row["dx"] not in classes:
            raise DatasetError(f"{labels_csv}: unknown dx '{row['dx']}', expected one of {', '.join(classes)}")
        if row["image_id"] not in by_stem:
            raise DatasetError(f"{images}: no image for image_id '{row['image_id']}' of {labels_csv.name}")
        paths.append(by_stem[row["image_id"]])
        targets.append(classes.index(row["dx"]))
    if not paths:
        raise DatasetError(f"{labels_csv}: no rows" + (f" of split '{split}'" if split else ""))
    name = split or images.name
    return LabelledImages(tuple(paths), np.array(targets, dtype=np.int64), classes, name)


def read_split(root: Path, split: str, classes: tuple[str, ...] = tuple(CLASSES)) -> LabelledImages:
    """One fixed split of a data set laid out as ``root/images`` and ``root/labels.csv``."""
    return read_labels(root / "images", root / "labels.csv", split, classes)


def decode_all(data: LabelledImages, height: int, width: int, crop: str = "squeeze") -> np.ndarray:
    """Decode every image to ``(n, height, width, 3)`` uint8 RGB, through the board's own reader."""
    out = np.empty((len(data), height, width, 3), np.uint8)
    for row, image in zip(out, iter_images(data, height, width, crop), strict=True):
        row[:] = image
    return out


def iter_images(data: LabelledImages, height: int, width: int, crop: str = "squeeze") -> Iterator[np.ndarray]:
    """Yield each image as ``(height, width, 3)`` uint8 RGB; DatasetError names a file that cannot be read."""
    from edge_mdda.picture.decode import decode, fit, read_bytes

    for path in data.paths:
        try:
            yield fit(decode(read_bytes(path)), height, width, crop)
        except ImageError as error:
            raise DatasetError(f"{path}: {error}") from error
