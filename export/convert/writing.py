"""The last step of a conversion: the report, where everything goes, and the files; the model comes last."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_mdda.classifier import Manifest
from edge_mdda.classifier.manifest import manifest_path
from edge_mdda.classifier.signature import signature_path
from edge_mdda.files import replace_file
from export.convert import audit, report
from export.convert.formats import Format
from export.convert.request import Judged, Request
from export.convert.sources import Source

NOTES = {
    "onnx-fp16": "Made for Jetson, and checked here on a CPU only: ONNX Runtime computes fp16 there through float32.",
    "onnx-int8-tensorrt": "Made for Jetson, and checked here on a CPU only: TensorRT itself has not run it.",
}


def report_of(
    source: Source,
    request: Request,
    judged: Judged,
    calibration_images: int,
    target: Format,
    manifest: Manifest,
    figures: dict[str, Any],
    view: str,
    found: dict[str, Any],
    limits: dict[str, float],
    versions: dict[str, str],
    runtime: str,
) -> dict[str, Any]:
    """What is known of the new file, for people and programs."""
    return {
        "format": target.name,
        "file": manifest.file,
        "sha256": manifest.sha256,
        "view": view,
        **figures[view],
        "threads": 1,
        "runtime": runtime,
        "machine": report.processor(),
        "n_images": len(judged.pictures),
        "image_set": judged.pictures.name,
        "labelled": judged.pictures.targets is not None,
        "views": figures,
        "audit": found,
        "audit_line": audit.as_line(found),
        "gates": limits,
        "preprocessing": manifest.preprocessing,
        "thresholds": f"refer at {manifest.refer_at:g}, retake at {manifest.retake_at:g} ({manifest.chosen_by})",
        "temperature": manifest.temperature,
        "operating_point": manifest.operating_point,
        "calibration": {
            "n": calibration_images if target.precision == "int8" else 0,
            "sha256": manifest.calibration_sha256,
            "purified": request.purify != "off",
        },
        "source": {
            "name": source.name, "kind": source.kind, "sha256": source.sha256, "runtime": source.runtime,
        },
        "tools": versions,
        "command": request.command,
        "note": NOTES.get(target.name, ""),
    }  # fmt: skip


def place(source: Source, request: Request, target: Format) -> tuple[Path, str]:
    """Where the model goes, and what the names of its reports begin with."""
    out = request.out
    if out.suffix == target.suffix:
        return out, f"{out.name}."
    folder = out / target.name if len(request.formats) > 1 else out
    return folder / f"{source.name}-{target.name}{target.suffix}", ""


def write(path: Path, prefix: str, content: bytes, manifest: Manifest, result: dict[str, Any]) -> None:
    """Write the reports, the manifest and, last, the model; a signature of an older file of that name goes."""
    beside = {f"{prefix}report.json": report.as_json(result), f"{prefix}report.md": report.as_markdown(result)}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in beside.items()}
    manifest = replace(manifest, files=sums)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = beside | {manifest_path(path).name: manifest.to_json().encode(), path.name: content}
    signature_path(path).unlink(missing_ok=True)  # of an older file of that name
    for name, data in written.items():
        replace_file(str(path.parent / name), data)
