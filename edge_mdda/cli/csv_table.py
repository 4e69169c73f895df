"""Screenings as a table in CSV (RFC 4180), for spreadsheets: one line a picture, those that failed among them."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, TextIO

from edge_mdda import NOTICE, __version__
from edge_mdda.cli.answers import NO_ADVICE

if TYPE_CHECKING:
    from edge_mdda.screening import Screening

COLUMNS = (
    "image", "advice", "rule", "malignant", "label", "disagreement", "failed_checks", "patient", "lesion", "note",
    "time", "sha256", "model", "model_sha256", "runtime", "preset", "seed", "draws", "version", "notice",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula, and would run."""


def harmless(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula; numbers as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


class CsvTable:
    """Writes the header with the first line; each line is there as soon as its picture is done."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rows = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        self._started = False

    def _write(self, row: dict[str, Any]) -> None:
        if not self._started:
            self._rows.writeheader()
            self._started = True
        row |= {"version": __version__, "notice": NOTICE}
        self._rows.writerow({name: "" if value is None else harmless(value) for name, value in row.items()})
        self._stream.flush()

    def add(self, result: Screening) -> None:
        """One screened picture."""
        answer = result.to_dict()
        same = ("advice", "rule", "malignant", "label", "disagreement", "patient", "lesion", "note", "time", "sha256")
        purify = answer["purify"] or {}
        self._write(
            {name: answer[name] for name in same}
            | {name: purify.get(name) for name in ("preset", "seed", "draws")}
            | {
                "image": _name(answer["image"]),
                "failed_checks": " ".join(one["name"].replace(" ", "_") for one in answer["quality"] if not one["ok"]),
                "model": answer["model"]["name"],
                "model_sha256": answer["model"]["sha256"],
                "runtime": answer["model"]["runtime"],
            }
        )

    def add_failure(self, name: str, cause: str, patient: str | None, lesion: str | None, note: str | None) -> None:
        """One picture that could not be judged, and why."""
        self._write(
            {"image": _name(name), "advice": NO_ADVICE, "rule": cause}
            | {"patient": patient, "lesion": lesion, "note": note}
        )


def _name(image: str) -> str:
    return "standard input" if image == "-" else image
