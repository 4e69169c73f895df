"""What travels with a model file: labels, input, preprocessing, origin, licence and its SHA-256."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from edge_mdda.classifier.signature import MAX_BYTES as MAX_SIGNATURE_BYTES
from edge_mdda.classifier.signature import canonical, require_trusted
from edge_mdda.digest import sha256
from edge_mdda.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

AnyPath = str | os.PathLike[str]

FORMAT = 1
CROPS = ("squeeze", "center")
LAYOUTS = ("NHWC", "NCHW")
MIN_SIDE, MAX_SIDE = 16, 4096  # pixels; the purifier's own range
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.1, 10.0
MAX_LEVEL = 1e6  # of mean and deviation; pixels reach 255
MAX_LABELS, MAX_LABEL = 1000, 100  # labels, characters of each: they are printed
MAX_TEXT, MAX_SHOWN, MAX_CAUSE = 20_000, 80, 200  # characters of a text, of a value in an error, of an error
TEXTS = (
    "name", "version", "file", "sha256", "chosen_by", "training_data", "licence", "notes", "target", "preprocessing",
    "calibration_sha256", "training_command",
)  # fmt: skip
NUMBERS = ("format", "height", "width", "mean", "std", "refer_at", "retake_at", "temperature")
MAX_MANIFEST_BYTES = 1 << 20
MAX_MODEL_BYTES = 1 << 30


@dataclass(frozen=True)
class Manifest:
    """The description of one model file.

    Attributes
    ----------
    name, version : str
        What the model is called.
    file, sha256 : str
        Name and hash of the file that this manifest describes.
    labels : dict of str to str
        Short label to full name, in the order of the outputs.
    malignant : tuple of str
        Labels that count towards the malignant share.
    height, width : int
        Input size in pixels.
    layout : {'NHWC', 'NCHW'}
        Axis order of the input tensor.
    crop : {'squeeze', 'center'}
        How an image comes to the input size; see :func:`edge_mdda.picture.decode.fit`.
    mean, std : float
        ``(pixel - mean) / std`` is fed to a float input; 0 and 1 where the graph does it.
    output : {'logits', 'probabilities'}
        What the graph returns.
    refer_at : float
        Malignant share from which on the advice is to refer.
    retake_at : float
        Disagreement (Jensen-Shannon, bits) of the raw and purified view from which on to retake.
    chosen_by : str
        The command that chose the two thresholds and the temperature.
    temperature : float
        Logits are divided by it before they become probabilities (C. Guo et al., ICML 2017).
    operating_point : dict
        The rule behind the thresholds, and what it does on the images that chose it and on others.
    training_data, licence, notes : str
        Origin of the weights.
    metrics : dict
        Figures of the conversion.
    target : str
        The export format, for example ``onnx-int8-tensorrt``; empty where unknown.
    preprocessing : str
        Where the normalisation happens, in words.
    calibration_sha256 : str
        Over the SHA-256 sums of the images that calibrated it, in their order; empty without calibration.
    training_command : str
        What trained the network.
    files : dict of str to str
        Name and SHA-256 of the files that lie beside it and belong to it.
    """

    name: str
    version: str
    file: str
    sha256: str
    labels: dict[str, str]
    malignant: tuple[str, ...]
    height: int
    width: int
    layout: str
    crop: str
    mean: float
    std: float
    output: str
    refer_at: float
    retake_at: float
    chosen_by: str
    training_data: str
    licence: str
    notes: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    target: str = ""
    preprocessing: str = ""
    calibration_sha256: str = ""
    training_command: str = ""
    files: dict[str, str] = field(default_factory=dict)
    temperature: float = 1.0
    operating_point: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        object.__setattr__(self, "malignant", tuple(self.malignant))
        for name in NUMBERS:  # what the checks below compare
            if type(getattr(self, name)) not in (int, float):
                raise ValueError(_unusable(name, getattr(self, name)))
        checks = {
            "format": self.format == FORMAT,
            **{name: _is_text(getattr(self, name), MAX_TEXT) for name in TEXTS},
            "labels": 2 <= len(self.labels) <= MAX_LABELS
            and all(_is_text(text, MAX_LABEL) and text.isprintable() for text in (*self.labels, *self.labels.values())),
            "malignant": len(self.malignant) > 0 and set(self.malignant) <= set(self.labels),
            "height": isinstance(self.height, int) and MIN_SIDE <= self.height <= MAX_SIDE,
            "width": isinstance(self.width, int) and MIN_SIDE <= self.width <= MAX_SIDE,
            "layout": self.layout in LAYOUTS,
            "crop": self.crop in CROPS,
            "mean": abs(self.mean) <= MAX_LEVEL,
            "std": 1 / MAX_LEVEL <= self.std <= MAX_LEVEL,
            "output": self.output in ("logits", "probabilities"),
            "refer_at": 0 <= self.refer_at <= 1,
            "temperature": MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE,
            "operating_point": isinstance(self.operating_point, dict),
            "retake_at": 0 <= self.retake_at <= 1,
            "sha256": len(self.sha256) == 64,
            "files": all(_is_plain(name) and len(digest) == 64 for name, digest in self.files.items()),
        }
        for name, good in checks.items():
            if not good:
                raise ValueError(_unusable(name, getattr(self, name)))

    def to_json(self) -> str:
        """Readable JSON with a final newline."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any]) -> Manifest:
        """Check field names and values; raises ValueError, TypeError or AttributeError."""
        known = {f.name for f in fields(cls)}
        unknown = set(content) - known
        if unknown:
            raise ValueError(f"unknown field(s) {', '.join(sorted(unknown))}")
        return cls(**content)


def _unusable(name: str, value: object) -> str:
    return f"field '{name}' has the unusable value {repr(value)[:MAX_SHOWN]}"


def _is_text(value: object, most: int) -> bool:
    return isinstance(value, str) and len(value) <= most


def no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For ``json.loads``: a name twice is an error, not the last of the two."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _is_plain(name: str) -> bool:
    """Whether a file of this name can only lie in the manifest's own folder."""
    return name not in ("", ".", "..") and "/" not in name and "\\" not in name and "\0" not in name


def manifest_path(model: Path) -> Path:
    """``lesion.onnx`` is described by ``lesion.onnx.json``."""
    return model.with_name(model.name + ".json")


def _is_file(path: AnyPath) -> bool:
    """False where there is none; OSError where that cannot be told."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a zero in the name
        return False


def _read(path: AnyPath, limit: int, kind: str) -> bytes:
    try:
        if not _is_file(path):
            raise ModelError(f"{path}: no such {kind} file")
        with open(path, "rb") as file:
            # Not limit + 1: that much would be allocated first, more than a small board has.
            content = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)
    except OSError as error:
        raise ModelError(f"{path}: cannot read the {kind} ({error.strerror})") from error
    if len(content) > limit:
        raise ModelError(f"{path}: {kind} is larger than {limit >> 20} MB")
    return content


EMBEDDED_KEY = "edge_mdda.manifest"
"""Name of the ONNX metadata entry that repeats the manifest."""

NOT_EMBEDDED = ("file", "sha256", "files")


def embedded_text(manifest: Manifest) -> str:
    """What an ONNX file says of itself: the manifest less file names and hashes, which it cannot know."""
    return canonical({k: v for k, v in asdict(manifest).items() if k not in NOT_EMBEDDED}).decode()


def is_embedded(text: str, manifest: Manifest) -> bool:
    """Whether ``text``, from inside a model file, says what ``manifest`` says; it may be older than some fields."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(content, dict):
        return False
    later = {f.name: f.default_factory() for f in fields(manifest) if f.default_factory is not MISSING}
    later |= {f.name: f.default for f in fields(manifest) if f.default is not MISSING}
    since = {name: value for name, value in later.items() if name not in NOT_EMBEDDED}
    try:
        return canonical(since | content).decode() == embedded_text(manifest)
    except ValueError:  # NaN
        return False


def read_manifest(path: AnyPath) -> tuple[dict[str, Any], Manifest]:
    """A manifest as it was written and as it is used; ModelError when it is not usable."""
    text = _read(path, MAX_MANIFEST_BYTES, "manifest")
    try:
        content = json.loads(text, object_pairs_hook=no_twins)
        return content, Manifest.from_mapping(content)
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        cause = " ".join(str(error).split())[:MAX_CAUSE]
        raise ModelError(f"{path}: not a usable manifest ({cause}); export the model again") from error


def read_signature(model: AnyPath) -> bytes | None:
    """The signature beside a model, None where there is none."""
    path = f"{os.fspath(model)}.sig"
    return _read(path, MAX_SIGNATURE_BYTES, "signature") if _is_file(path) else None


def read_verified(
    model: AnyPath, manifest_file: AnyPath, trusted: frozenset[str] = frozenset()
) -> tuple[bytes, Manifest]:
    """The model's bytes and manifest, after the bytes were found to be those that it describes.

    The bytes that were hashed are the bytes returned: the file is read once. Where keys are ``trusted``, the
    manifest must be signed by one of them.

    Raises
    ------
    ModelError
        A file is missing, unreadable or not what it should be.
    """
    content = _read(model, MAX_MODEL_BYTES, "model")
    written, manifest = read_manifest(manifest_file)
    if trusted:
        require_trusted(written, read_signature(model), model, trusted)
    digest = sha256(content).hexdigest()
    if digest != manifest.sha256:
        raise ModelError(
            f"{model}: SHA-256 is {digest[:12]}…, its manifest says {manifest.sha256[:12]}…;"
            " the file was altered or damaged: install it again"
        )
    return content, manifest
