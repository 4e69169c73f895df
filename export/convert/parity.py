"""How far an exported model is from its source, on pictures that calibration never saw, and whether that will do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_mdda.classifier import Classifier, Manifest
from export.convert.formats import Format
from export.errors import ExportError
from export.metrics import balanced_accuracy, recalls

TINY = 1e-30  # below every probability that float32 can tell from 0
WARM_UPS, RUNS = 5, 50  # of the latency
RUNS_BATCH = 16  # pictures a call


@dataclass(frozen=True)
class Gates:
    """What a converted model must keep; None takes the format's own default.

    Attributes
    ----------
    min_agreement : float, optional
        Least share of pictures with the source's top class.
    max_kl : float, optional
        Largest mean Kullback-Leibler divergence of the exported from the source's answer, nats.
    max_balanced_loss, max_melanoma_loss : float, optional
        Largest loss of balanced accuracy and of melanoma recall, where labels are known.
    max_bytes : int, optional
        Largest file; no limit by default.
    min_images : int
        Least number of unseen pictures to judge by.
    """

    min_agreement: float | None = None
    max_kl: float | None = None
    max_balanced_loss: float | None = None
    max_melanoma_loss: float | None = None
    max_bytes: int | None = None
    min_images: int = 50

    def of(self, target: Format) -> dict[str, float]:
        """The limits that hold for one format."""
        names = ("min_agreement", "max_kl", "max_balanced_loss", "max_melanoma_loss")
        limits = {n: getattr(target, n) if getattr(self, n) is None else getattr(self, n) for n in names}
        return limits | ({"max_bytes": self.max_bytes} if self.max_bytes is not None else {})


def to_probabilities(outputs: np.ndarray, output: str) -> np.ndarray:
    """Rows of probabilities from a source's logits or probabilities; ExportError when they are no numbers."""
    values = np.asarray(outputs, np.float64)
    if not np.isfinite(values).all():
        raise ExportError("the source model answers NaN or infinity; its weights are damaged")
    if output == "logits":
        values = np.exp(values - values.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


def centred_logits(probabilities: np.ndarray) -> np.ndarray:
    """Logits less their mean: all of them that a softmax keeps."""
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), TINY))
    return logs - logs.mean(axis=1, keepdims=True)


def predict(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """Probabilities of all images, a few at a time."""
    return np.concatenate([classifier.predict(images[i : i + RUNS_BATCH]) for i in range(0, len(images), RUNS_BATCH)])


def compare(
    source: np.ndarray, exported: np.ndarray, targets: np.ndarray | None, labels: tuple[str, ...]
) -> dict[str, float | None]:
    """Figures of one view: agreement, divergence, logit error, and what the labels say before and after.

    Parameters
    ----------
    source, exported : ndarray
        Probabilities ``(n, n_labels)``.
    targets : ndarray, optional
        Class indices ``(n,)``; without them the label figures are None.
    """
    p, q = (np.maximum(np.asarray(rows, np.float64), TINY) for rows in (source, exported))
    divergence = np.maximum((p * np.log(p / q)).sum(axis=1), 0.0)  # rounding of float32 sums can leave -1e-10
    figures: dict[str, float | None] = {
        "argmax_agreement": float((p.argmax(1) == q.argmax(1)).mean()),
        "kl_mean": float(divergence.mean()),
        "kl_max": float(divergence.max()),
        "max_logit_error": float(np.abs(centred_logits(p) - centred_logits(q)).max()),
    }
    for name, rows in (("source", p), ("exported", q)):
        known = None if targets is None else balanced_accuracy(targets, rows.argmax(1), len(labels))
        figures[f"balanced_accuracy_{name}"] = known
    for name, rows in (("source", p), ("exported", q)):
        melanoma = None
        if targets is not None and "mel" in labels and (targets == labels.index("mel")).any():
            melanoma = float(recalls(targets, rows.argmax(1), len(labels))[labels.index("mel")])
        figures[f"melanoma_recall_{name}"] = melanoma
    return figures


def as_line(figures: dict[str, float | None]) -> str:
    """The figures of one view in a few words."""
    line = (
        f"agreement {figures['argmax_agreement']:.4f}, mean KL {figures['kl_mean']:.5f},"
        f" largest logit error {figures['max_logit_error']:.3f}"
    )
    for name in ("balanced_accuracy", "melanoma_recall"):
        before, after = figures[f"{name}_source"], figures[f"{name}_exported"]
        if before is not None:
            line += f", {name.replace('_', ' ')} {before:.4f} -> {after:.4f}"
    return line


def failures(figures: dict[str, Any], size: int, limits: dict[str, float], view: str) -> list[str]:
    """Every limit that is not kept, in words."""

    def loss(name: str) -> float:
        before, after = figures[f"{name}_source"], figures[f"{name}_exported"]
        return 0.0 if before is None or after is None else before - after

    tolerance = 1e-9  # of sums of fractions
    checks = {
        f"argmax agreement {figures['argmax_agreement']:.4f} on the {view} view is below --min-agreement "
        f"{limits['min_agreement']:g}": figures["argmax_agreement"] >= limits["min_agreement"] - tolerance,
        f"mean KL divergence {figures['kl_mean']:.5f} on the {view} view is above --max-kl {limits['max_kl']:g}": (
            figures["kl_mean"] <= limits["max_kl"]
        ),
        f"balanced accuracy loses {loss('balanced_accuracy'):.4f} on the {view} view, more than --max-balanced-loss "
        f"{limits['max_balanced_loss']:g}": loss("balanced_accuracy") <= limits["max_balanced_loss"] + tolerance,
        f"melanoma recall loses {loss('melanoma_recall'):.4f} on the {view} view, more than --max-melanoma-loss "
        f"{limits['max_melanoma_loss']:g}": loss("melanoma_recall") <= limits["max_melanoma_loss"] + tolerance,
        f"the file has {size} bytes, more than --max-bytes {limits.get('max_bytes', 0):g}": (
            "max_bytes" not in limits or size <= limits["max_bytes"]
        ),
    }
    return [cause for cause, good in checks.items() if not good]


def median_ms(run: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> float:
    """Median milliseconds of one picture."""
    times = []
    for n in range(WARM_UPS + RUNS):
        started = time.perf_counter()
        run(image[None])
        if n >= WARM_UPS:
            times.append((time.perf_counter() - started) * 1e3)
    return float(np.median(times))


def open_bytes(content: bytes, manifest: Manifest, target: Format) -> Classifier:
    """The file in its real runtime, one thread."""
    if target.is_tflite:
        from edge_mdda.classifier.tflite import TfliteClassifier

        return TfliteClassifier(content, manifest, threads=1)
    from edge_mdda.classifier.onnx import OnnxClassifier

    return OnnxClassifier(content, manifest, threads=1)
