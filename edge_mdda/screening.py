"""From one image to one answer: decode, purify, classify both views, compare, advise.

What the advice does not withstand: an attacker who knows the purifier and optimises through it, a
replaced picture, and everything that the network itself gets wrong. It is a referral aid, never a diagnosis.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from edge_mdda import NOTICE, __version__
from edge_mdda.classifier import Classifier, open_classifier
from edge_mdda.digest import sha256
from edge_mdda.errors import ParamsError
from edge_mdda.files import Content, Limits, read_bytes
from edge_mdda.mdda.kernels import backend
from edge_mdda.mdda.params import MAX_DRAWS, PRESETS
from edge_mdda.mdda.seeds import MASK_64, fresh_seed
from edge_mdda.picture.decode import decode, fit
from edge_mdda.triage import Advice, advise, jensen_shannon

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

PURIFY_MODES = ("off", "on", "both")


@dataclass(frozen=True)
class Screening:
    """The answer for one image.

    ``probabilities`` are those of the purified view (the mean of its draws), or of the raw one with ``purify="off"``;
    they assume that all classes are equally likely, as the network was trained to.
    """

    image: str
    sha256: str
    probabilities: dict[str, float]
    raw_probabilities: dict[str, float] | None
    malignant: float
    disagreement: float | None
    """Jensen-Shannon divergence of the raw and the purified view in bits, 0 to 1."""
    top_changed: bool | None
    advice: Advice
    purify: dict[str, Any] | None
    """Preset, seed and number of draws; None without purifier."""
    spread: dict[str, float] | None
    """How much several draws of the purifier differ: standard deviation of the malignant share, and the share of
    draws with the top class of their mean. None with one draw."""
    kernels: dict[str, str] | None
    """Back end and CPU of the purifier's machine code; None without purifier."""
    model: dict[str, str]
    operating_point: dict[str, Any]
    """The thresholds, the temperature, and what they do on the images that they were judged on."""
    timings_ms: dict[str, float]
    purified: np.ndarray | None
    """(height, width, 3) uint8 at the model's size; not part of the JSON."""
    resize_ms: float = 0.0
    """Share of ``timings_ms["decode"]`` after the decoder: to the model's size, and the look at its quality."""
    time: str = ""
    """When it was screened, UTC, as RFC 3339 writes it; what the board's clock says."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the picture in pixels."""
    seen: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom of the square that was judged, where a dark border was cut away."""
    malignant_in_usual_light: float | None = None
    """Malignant share of an oddly lit or coloured picture once it is brought to usual light, the larger of two ways to
    do so; it counts like a view."""
    malignant_in_whole_field: float | None = None
    """Malignant share of all of the field of view, where a dark border was cut away; it counts like a view."""
    quality: tuple[dict[str, Any], ...] = ()
    """The checks of the picture: name, value, threshold, ok, advice; see :mod:`edge_mdda.picture.quality`."""

    patient: str | None = None
    """Who it is, what it is, and a remark, as the caller names them; the program makes nothing of them."""
    lesion: str | None = None
    note: str | None = None

    @property
    def label(self) -> str:
        """Most probable class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``edge-mdda screen --json`` prints them."""

        def rounded(values: dict[str, float] | None) -> dict[str, float] | None:
            return None if values is None else {name: round(value, 5) for name, value in values.items()}

        lit_share, rim_share = self.malignant_in_usual_light, self.malignant_in_whole_field
        return {
            "image": self.image,
            "sha256": self.sha256,
            "label": self.label,
            "probabilities": rounded(self.probabilities),
            "raw_probabilities": rounded(self.raw_probabilities),
            "malignant": round(self.malignant, 5),
            "disagreement": None if self.disagreement is None else round(self.disagreement, 5),
            "top_changed": self.top_changed,
            "advice": self.advice.action,
            "rule": self.advice.rule,
            "purify": self.purify,
            "spread": rounded(self.spread),
            "kernels": self.kernels,
            "model": self.model,
            "operating_point": self.operating_point,
            "malignant_in_usual_light": None if lit_share is None else round(lit_share, 5),
            "malignant_in_whole_field": None if rim_share is None else round(rim_share, 5),
            "quality": list(self.quality),
            "size": list(self.size),
            "seen": None if self.seen is None else list(self.seen),
            "patient": self.patient,
            "lesion": self.lesion,
            "note": self.note,
            "time": self.time,
            "version": __version__,
            "timings_ms": {name: round(value, 3) for name, value in self.timings_ms.items()},
            "notice": NOTICE,
        }


class Screener:
    """Screens images with one model and one purifier, both opened once.

    Parameters
    ----------
    model : path, optional
        Default: the built-in model.
    runtime : {'onnx', 'tflite'}, optional
        Default: by the model's suffix.
    purify : {'both', 'on', 'off'}
        Classify the purified and the raw view, only the purified, or only the raw one.
        Only ``both`` can tell that the views disagree.
    preset : str
        Name of the purifier's parameters.
    threads : int
        Threads of the purifier and the runtime.
    limits : Limits, optional
        Largest input accepted.
    provider : {'cpu', 'cuda', 'tensorrt', 'auto'}
        What ONNX Runtime runs on.
    draws : int
        How often each image is purified, with other noise each time, 1 to ``MAX_DRAWS``; the answers are averaged.

    Raises
    ------
    ModelError, ParamsError
        Before any image is read.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        runtime: str | None = None,
        purify: str = "both",
        preset: str = "balanced",
        threads: int = 1,
        limits: Limits | None = None,
        provider: str = "cpu",
        draws: int = 1,
    ) -> None:
        if not 1 <= draws <= MAX_DRAWS or (draws > 1 and purify == "off"):
            raise ParamsError(f"draws: expected 1 to {MAX_DRAWS}, and 1 without purifier; got {draws!r}")
        if purify not in PURIFY_MODES:
            raise ParamsError(f"purify: expected one of {', '.join(PURIFY_MODES)}, got {purify!r}")
        if preset not in PRESETS:
            raise ParamsError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
        import cv2  # noqa: F401  now, so that the first image's timings hold no import

        self.classifier: Classifier = open_classifier(model, runtime, threads, provider)
        self.purify, self.preset, self.draws = purify, preset, draws
        self.limits = limits or Limits()
        manifest = self.classifier.manifest
        self._purifier = None
        if purify != "off":
            from edge_mdda.mdda.purifier import Purifier

            self._purifier = Purifier(manifest.height, manifest.width, PRESETS[preset], threads)

    def close(self) -> None:
        """Stop the purifier's threads."""
        if self._purifier:
            self._purifier.close()

    def __enter__(self) -> Screener:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def screen(self, source: str | os.PathLike[str] | Content, seed: int | None = None, name: str = "-") -> Screening:
        """Screen one image.

        Parameters
        ----------
        source : path, bytes, bytearray or memoryview
            An image file or its content.
        seed : int, optional
            Seed of the purifier, 0 to 2**64 - 1. Default: fresh from the operating system.
        name : str
            What to call an image that came as bytes.

        Raises
        ------
        ImageError
            The image cannot be read; one line.
        ModelError
            The model cannot run.
        ParamsError
            The seed is out of its range.
        TypeError
            The source is neither a path nor bytes.
        """
        import numpy as np

        from edge_mdda.picture.field import useful_square, whole_field
        from edge_mdda.picture.quality import judge, lit, problem

        manifest = self.classifier.manifest
        start = time.perf_counter()
        if isinstance(source, (bytes, bytearray, memoryview)):
            content = bytes(source)
        elif isinstance(source, (str, os.PathLike)):
            content, name = read_bytes(source, self.limits), os.fspath(source)
        else:  # a number would be taken for an open file's
            raise TypeError(f"screen: expected a path or the bytes of a picture, got {type(source).__name__}")
        picture = decode(content, self.limits)
        pixels_there = time.perf_counter()
        stored_size = picture.shape[:2]
        square = useful_square(picture)
        view = picture if square is None else np.ascontiguousarray(picture[square])
        raw = fit(view, manifest.height, manifest.width, manifest.crop)
        verdicts = judge(raw, view.shape[:2], view)
        rim = [] if square is None else [whole_field(picture, manifest.height, manifest.width)]
        del picture, view  # up to 120 MB that the rest need not carry along
        decoded = time.perf_counter()
        drawn: list[np.ndarray] = []
        if self._purifier:
            seed = fresh_seed() if seed is None else seed
            # Neighbouring seeds share nothing (see edge_mdda.mdda.seeds), and the first draw is that of a single one.
            drawn = [self._purifier.purify(raw, (seed + k) & MASK_64) for k in range(self.draws)]
        purify_done = time.perf_counter()
        views = drawn + ([] if self.purify == "on" else [raw])
        in_usual_light = lit(raw)
        answers = self.classifier.predict(np.stack([*views, *in_usual_light, *rim]))
        answers, more = answers[: len(views)], answers[len(views) :]
        done = time.perf_counter()

        labels = list(manifest.labels)
        malignant_columns = [labels.index(label) for label in manifest.malignant]
        of_draws = answers[: len(drawn)]
        rows = np.concatenate([of_draws.mean(axis=0, keepdims=True), answers[len(drawn) :]]) if drawn else answers
        shares = rows[:, malignant_columns].sum(axis=1)
        more_shares = more[:, malignant_columns].sum(axis=1)
        lit_share = float(more_shares[: len(in_usual_light)].max()) if in_usual_light else None
        largest = float(np.concatenate([shares, more_shares]).max())
        both = self.purify == "both"
        disagreement = jensen_shannon(rows[0], rows[1]) if both else None
        return Screening(
            image=name,
            sha256=sha256(content).hexdigest(),
            probabilities=dict(zip(labels, map(float, rows[0]), strict=True)),
            raw_probabilities=None if self.purify == "on" else dict(zip(labels, map(float, rows[-1]), strict=True)),
            malignant=float(shares[0]),
            disagreement=disagreement,
            top_changed=bool(rows[0].argmax() != rows[1].argmax()) if both else None,
            advice=advise(largest, disagreement, manifest.refer_at, manifest.retake_at, problem(verdicts)),
            purify={"preset": self.preset, "seed": seed, "draws": self.draws} if self._purifier else None,
            spread=_spread(of_draws, malignant_columns) if len(drawn) > 1 else None,
            kernels=backend().to_dict() if self._purifier else None,
            model={"name": manifest.name, "sha256": manifest.sha256, "runtime": self.classifier.runtime},
            operating_point={
                "refer_at": manifest.refer_at,
                "retake_at": manifest.retake_at,
                "temperature": manifest.temperature,
                "chosen_by": manifest.chosen_by,
                **manifest.operating_point,
            },
            timings_ms={
                "decode": (decoded - start) * 1e3,
                "purify": (purify_done - decoded) * 1e3,
                "classify": (done - purify_done) * 1e3,
                "total": (done - start) * 1e3,
            },
            purified=drawn[0] if drawn else None,
            resize_ms=(decoded - pixels_there) * 1e3,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
            size=(stored_size[1], stored_size[0]),
            seen=None if square is None else (square[1].start, square[0].start, square[1].stop, square[0].stop),
            malignant_in_usual_light=lit_share,
            malignant_in_whole_field=float(more_shares[-1]) if rim else None,
            quality=tuple(verdict.to_dict() for verdict in verdicts),
        )


def _spread(answers: np.ndarray, malignant_columns: list[int]) -> dict[str, float]:
    top = answers.mean(axis=0).argmax()
    return {
        "malignant": float(answers[:, malignant_columns].sum(axis=1).std()),
        "agreement": float((answers.argmax(axis=1) == top).mean()),
    }
