"""Names of a network's outputs, as a person gives them."""

from __future__ import annotations

import json
from pathlib import Path

from export.errors import ExportError


def read_label_names(text: str) -> dict[str, str]:
    """``a,b,c``, a JSON object of label to full name, or a text file with ``label[,full name]`` a line."""
    path = Path(text)
    try:
        is_file = path.is_file()
    except OSError:
        is_file = False
    if not is_file:
        if "," not in text:
            raise ExportError(f"--labels: '{text}' is neither a file nor a list such as benign,malignant")
        pairs = [(part.strip(), part.strip()) for part in text.split(",")]
    else:
        content = path.read_text(encoding="utf-8")
        try:
            stored = json.loads(content) if path.suffix == ".json" else None
        except ValueError as error:
            raise ExportError(f"{path}: not a JSON object of labels ({error})") from error
        if stored is not None and not isinstance(stored, dict):
            raise ExportError(f"{path}: expected a JSON object of label to full name")
        lines = [line.partition(",") for line in content.splitlines() if line.strip()]
        pairs = list(stored.items()) if stored else [(a.strip(), b.strip() or a.strip()) for a, _, b in lines]
    labels = dict(pairs)
    if len(labels) != len(pairs) or len(labels) < 2 or "" in labels:
        raise ExportError("--labels: expected at least two labels, none empty and none twice")
    return labels
