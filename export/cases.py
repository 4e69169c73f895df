"""Cases with what is known of them (malignant or not, class, age, sex, body site, patient), and their screenings.

A case is screened as the board screens it: :class:`edge_mdda.screening.Screener` with both views.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_mdda.errors import ImageError
from edge_mdda.files import IMAGE_SUFFIXES
from export.dataset import CLASSES, MALIGNANT, DatasetError

if TYPE_CHECKING:
    from edge_mdda.classifier import Manifest
    from edge_mdda.screening import Screener

AGE_BANDS = ((0, "under 30"), (30, "30 to 49"), (50, "50 to 69"), (70, "70 and over"))  # years, from the first on
NOT_KNOWN = "not known"
SITES = {
    "head and neck": ("face", "scalp", "neck", "ear", "head"),
    "trunk": ("trunk", "torso", "back", "chest", "abdomen"),
    "hands and feet": ("palms", "soles", "hand", "foot", "acral"),
    "arms and legs": ("upper extremity", "lower extremity"),
    "mouth and genitals": ("oral", "genital"),
}
"""Body sites, and the words by which the sources name them."""
MEANS_MALIGNANT = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


@dataclass(frozen=True)
class Case:
    """One labelled picture."""

    path: Path
    malignant: bool
    target: int | None
    """Index into the model's labels; None where the class is not known."""
    age: str
    sex: str
    site: str
    patient: str | None


@dataclass(frozen=True)
class Screened:
    """What the screener said of n cases, in their order."""

    cases: tuple[Case, ...]
    raw: np.ndarray
    """(n, n_labels) float64 probabilities of the raw view."""
    purified: np.ndarray
    """(n, n_labels) float64 probabilities of the purified view."""
    largest: np.ndarray
    """(n,) float64 malignant share that the advice looks at: the largest of all views."""
    advice: np.ndarray
    """(n,) str: refer, retake or routine."""
    border: np.ndarray
    """(n,) bool: a dark border was cut away."""

    @property
    def positive(self) -> np.ndarray:
        """(n,) bool: malignant."""
        return np.array([case.malignant for case in self.cases], bool)

    def subset(self, keep: np.ndarray) -> Screened:
        """The cases where ``keep``, (n,) bool, holds."""
        cases = tuple(case for case, kept in zip(self.cases, keep, strict=True) if kept)
        return Screened(
            cases, self.raw[keep], self.purified[keep], self.largest[keep], self.advice[keep], self.border[keep]
        )


def age_band(text: str) -> str:
    """The band of an age in years as a label file writes it."""
    try:
        years = float(text)
    except ValueError:
        return NOT_KNOWN
    names = [name for start, name in AGE_BANDS if years >= start]
    return names[-1] if names else NOT_KNOWN


def body_site(text: str) -> str:
    """The site's name here; a site that no word of ``SITES`` describes keeps its own."""
    plain = text.strip().lower()
    if plain in ("", "unknown"):
        return NOT_KNOWN
    return next((site for site, words in SITES.items() if any(word in plain for word in words)), plain)


def read_rows(labels_csv: Path) -> list[dict[str, str]]:
    """Rows of a label file; DatasetError where it cannot be read or names no pictures."""
    if labels_csv.exists() and not labels_csv.is_file():  # a pipe could be read only once, and its hash not told
        raise DatasetError(f"{labels_csv}: not a regular file")
    try:
        with labels_csv.open(newline="", encoding="utf-8-sig") as file:
            rows = [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{labels_csv}: cannot read labels ({error})") from error
    columns = set(rows[0] if rows else ())
    if "image_id" not in columns or not columns & {"dx", "malignant"}:
        raise DatasetError(f"{labels_csv}: needs the column image_id, and dx or malignant (0 or 1)")
    return rows


def _verdict(row: dict[str, str], manifest: Manifest, labels_csv: Path) -> tuple[bool, int | None]:
    labels, dx = list(manifest.labels), row.get("dx", "")
    target = labels.index(dx) if dx in labels else None
    if row.get("malignant"):
        known = MEANS_MALIGNANT.get(row["malignant"].strip().lower())
        if known is None:
            raise DatasetError(f"{labels_csv}: malignant is 0 or 1, not '{row['malignant']}' ({row['image_id']})")
        return known, target
    if target is None and dx not in CLASSES:
        expected = ", ".join(dict.fromkeys([*labels, *CLASSES]))
        raise DatasetError(f"{labels_csv}: unknown dx '{dx}' ({row['image_id']}), expected one of {expected}")
    return dx in (manifest.malignant if target is not None else MALIGNANT), target


def read_cases(images: Path, labels_csv: Path, manifest: Manifest, split: str | None = None) -> tuple[Case, ...]:
    """Match a label file with a folder of pictures.

    Parameters
    ----------
    images : Path
        Folder that holds ``<image_id>.jpg`` (or another common suffix).
    labels_csv : Path
        Columns ``image_id`` and ``dx`` or ``malignant``; ``age``, ``sex``, ``localization`` and ``patient_id``
        where they are known.
    manifest : Manifest
        Its labels give the classes, and which of them are malignant.
    split : str, optional
        Only the rows of this split; they may be none.

    Raises
    ------
    DatasetError
        Missing folder, file, column or picture, or an unknown diagnosis.
    """
    rows = read_rows(labels_csv)
    if split and "split" not in rows[0]:
        raise DatasetError(f"{labels_csv}: column split missing")
    if not images.is_dir():
        raise DatasetError(f"{images}: no such folder of images")
    by_stem = {p.stem: p for p in sorted(images.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES}
    cases = []
    for row in rows:
        if split and row["split"] != split:
            continue
        if row["image_id"] not in by_stem:
            raise DatasetError(f"{images}: no image for image_id '{row['image_id']}' of {labels_csv.name}")
        malignant, target = _verdict(row, manifest, labels_csv)
        site = row.get("localization", "") or row.get("anatom_site_general", "")
        sex = row.get("sex", "").strip().lower()
        cases.append(
            Case(
                by_stem[row["image_id"]],
                malignant,
                target,
                age_band(row.get("age", "")),
                sex if sex not in ("", "unknown") else NOT_KNOWN,
                body_site(site),
                row.get("patient_id") or None,
            )
        )
    return tuple(cases)


def screen_cases(
    screener: Screener, cases: Sequence[Case], seed: int = 0, step: Callable[[], None] | None = None
) -> Screened:
    """Screen every case with a screener of both views; ``step`` is called once a picture.

    Raises
    ------
    DatasetError
        A picture cannot be read; it is named.
    """
    from export.evaluate import purifier_seed

    raw, purified, largest, advice, border = [], [], [], [], []
    for case in cases:
        try:
            found = screener.screen(case.path, purifier_seed(case.path, seed))
        except ImageError as error:
            raise DatasetError(f"{case.path}: {error}") from error
        assert found.raw_probabilities is not None  # both views
        raw.append(list(found.raw_probabilities.values()))
        purified.append(list(found.probabilities.values()))
        columns = screener.classifier.manifest.malignant
        raw_share = sum(found.raw_probabilities[label] for label in columns)
        largest.append(max(found.malignant, raw_share, found.malignant_in_usual_light or 0.0))
        advice.append(found.advice.action)
        border.append(found.seen is not None)
        if step:
            step()
    return Screened(
        tuple(cases), np.array(raw), np.array(purified), np.array(largest), np.array(advice), np.array(border, bool)
    )
