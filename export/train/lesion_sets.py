"""Several sets of lesions, each with what is known of it: one of the classes, or only malignant or not.

Folders as ``export.dataset`` reads them. ``labels.csv`` has ``image_id``, ``split`` and ``dx`` (a class) or
``malignant`` (0 or 1); ``masks/<image_id>.png`` tells where the lesion lies, where it is there.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_mdda.picture.decode import decode, fit
from export.dataset import CLASSES, SIDE, DatasetError

BENIGN, MALIGNANT_ONLY = -1, -2  # targets where no class is known
HALF = 127  # grey level; masks are 0 and 255
WHOLE = (0.0, 0.0, 1.0, 1.0)  # left, top, right, bottom, as shares of the side


@dataclass
class LesionSets:
    """Encoded pictures of several sources."""

    encoded: list[bytes]
    source: np.ndarray
    """(n,) index of the folder."""
    target: np.ndarray
    """(n,) class, or ``BENIGN`` or ``MALIGNANT_ONLY``."""
    held_back: np.ndarray
    """(n,) bool: of another split than the one trained on."""
    box: np.ndarray
    """(n, 4) float32, where the lesion lies."""

    def decoded(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), 224, 224, 3) uint8 RGB."""
        out = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
        for k, row in enumerate(rows):
            out[k] = fit(decode(self.encoded[row]), SIDE, SIDE, "squeeze")
        return out


def read_sets(roots: Sequence[Path], splits: Sequence[str] = ("train", "val")) -> LesionSets:
    """Read the folders; the first split is trained on, the others are held back.

    Raises
    ------
    DatasetError
        A folder without labels, a label that is no class, a picture that is not there.
    """
    encoded, source, target, held_back, box = [], [], [], [], []
    for index, root in enumerate(roots):
        try:
            with (root / "labels.csv").open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
        except OSError as error:
            raise DatasetError(f"{root}/labels.csv: cannot be read ({error.strerror})") from error
        for row in rows:
            if row["split"] not in splits:
                continue
            try:
                encoded.append((root / "images" / f"{row['image_id']}.jpg").read_bytes())
            except OSError as error:
                raise DatasetError(f"{error.filename}: cannot be read ({error.strerror})") from error
            source.append(index)
            target.append(_target(row, root))
            held_back.append(row["split"] != splits[0])
            box.append(_box(root / "masks" / f"{row['image_id']}.png"))
    return LesionSets(encoded, np.array(source), np.array(target), np.array(held_back), np.array(box, np.float32))


def _target(row: dict[str, str], root: Path) -> int:
    if "dx" in row:
        if row["dx"] not in CLASSES:
            raise DatasetError(f"{root}/labels.csv: unknown dx '{row['dx']}', expected one of {', '.join(CLASSES)}")
        return list(CLASSES).index(row["dx"])
    if row.get("malignant") not in ("0", "1"):
        raise DatasetError(f"{root}/labels.csv: needs a column dx (a class) or malignant (0 or 1)")
    return MALIGNANT_ONLY if row["malignant"] == "1" else BENIGN


def _box(mask: Path) -> tuple[float, float, float, float]:
    if not mask.exists():
        return WHOLE
    there = decode(mask.read_bytes())[..., 0] > HALF
    if not there.any():
        return WHOLE
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    h, w = there.shape
    return columns[0] / w, rows[0] / h, (columns[-1] + 1) / w, (rows[-1] + 1) / h


def pack(sets: LesionSets, path: Path) -> None:
    """One file for a machine that does not have the folders."""
    sizes = np.array([len(picture) for picture in sets.encoded])
    blob = np.frombuffer(b"".join(sets.encoded), np.uint8)
    np.savez(path, blob=blob, sizes=sizes, source=sets.source, y=sets.target, val=sets.held_back, box=sets.box)


def unpack(paths: Sequence[Path]) -> LesionSets:
    """Several packed files as one set."""
    encoded: list[bytes] = []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("source", "y", "val", "box")}
    for path in paths:
        with np.load(path) as file:
            blob, ends = file["blob"].tobytes(), np.cumsum(file["sizes"])
            encoded += [blob[end - size : end] for end, size in zip(ends, file["sizes"], strict=True)]
            for name, parts in columns.items():
                parts.append(file[name])
    whole = {name: np.concatenate(parts) for name, parts in columns.items()}
    return LesionSets(encoded, whole["source"], whole["y"], whole["val"].astype(bool), whole["box"])
