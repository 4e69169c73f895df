"""What a conversion is asked for, and the pictures that judge it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from export.convert import parity
from export.convert.formats import Format
from export.convert.pictures import Pictures


@dataclass(frozen=True)
class Request:
    """What to convert to, by which pictures, and how strictly.

    Attributes
    ----------
    calibration : Path
        A data set (``images/``, ``labels.csv`` with splits: ``train`` calibrates) or a folder of images.
    verification : Path, optional
        Other images to judge by; by default ``split`` of the data set, or what the folder has left over.
    verification_labels : Path, optional
        Label file of ``verification``.
    split : str
        Split of the data set to judge by.
    calibration_images : int
        How many calibrate.
    max_images : int, optional
        How many judge at most.
    purify : {'off', 'on', 'both'}
        Views to judge by; unless it is 'off', every second calibration image is purified too.
    float_first : int, optional
        Convolutions at the start that an ONNX int8 file keeps in float: three, or as many as a checkpoint
        wants that brings ranges along.
    weight_scale : {'minmax', 'octav'}
        How a TFLite int8 file scales its weights.
    refer_at, retake_at : float, optional
        Thresholds; chosen on the data set's ``val`` split where it is there.
    sources : tuple of Path
        Data sets of other clinics. The referral threshold reaches its sensitivity on the ``val`` of each one, too.
    """

    formats: tuple[Format, ...]
    calibration: Path
    out: Path
    command: str
    gates: parity.Gates = field(default_factory=parity.Gates)
    verification: Path | None = None
    verification_labels: Path | None = None
    split: str = "test"
    calibration_images: int = 400
    max_images: int | None = None
    purify: str = "both"
    seed: int = 0
    float_first: int | None = None
    weight_scale: str = "minmax"
    tflite_env: Path | None = None
    refer_at: float | None = None
    retake_at: float | None = None
    sources: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Judged:
    """Pictures to judge by, decoded, and the source's answers to them: view name to array."""

    pictures: Pictures
    views: dict[str, np.ndarray]
    answers: dict[str, np.ndarray]
