"""Judge a model file on labelled images, with the purifier off and on, exactly as the board runs it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_mdda.classifier import Classifier
from edge_mdda.files import replace_file
from edge_mdda.mdda.params import PRESETS
from export.dataset import CLASSES, MALIGNANT, SIDE, LabelledImages, iter_images
from export.metrics import bootstrap, figures

SHOWN = ("balanced_accuracy", "accuracy", "melanoma_recall", "melanoma_specificity", "macro_auroc", "calibration_error")


class TorchClassifier:
    """A training checkpoint behind the same protocol as the board's runtimes."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        import torch

        from edge_mdda.classifier import Manifest
        from export.train.network import network_from_checkpoint

        network, content = network_from_checkpoint(path)
        torch.set_num_threads(threads)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.runtime = f"torch {torch.__version__}"
        self.manifest = Manifest(
            name=path.parent.name,
            version="0",
            file=path.name,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            labels={label: CLASSES[label] for label in content["labels"]},
            malignant=MALIGNANT,
            height=SIDE,
            width=SIDE,
            layout="NCHW",
            crop="squeeze",
            mean=0.0,
            std=1.0,
            output="logits",
            refer_at=0.5,
            retake_at=0.5,
            chosen_by="not chosen",
            training_data="see the checkpoint",
            licence="see the checkpoint",
        )

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Class probabilities ``(n, n_labels)`` float32 of ``(n, 224, 224, 3)`` uint8 RGB."""
        import torch

        with torch.inference_mode():
            logits = self.network(torch.from_numpy(np.ascontiguousarray(batch)).permute(0, 3, 1, 2).float())
            return torch.softmax(logits, 1).numpy()


def open_any(model: Path | None, runtime: str | None = None, threads: int = 1) -> Classifier:
    """A checkpoint (``.pt``) or anything that the board can open."""
    from edge_mdda.classifier import open_classifier

    return (
        TorchClassifier(model, threads) if model and model.suffix == ".pt" else open_classifier(model, runtime, threads)
    )


def purifier_seed(path: Path, seed: int) -> int:
    """The seed of one image in an evaluation: a hash of its name, so that a subset gives the same images."""
    digest = hashlib.sha256(f"{seed}:{path.stem}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def predict_all(
    classifier: Classifier,
    data: LabelledImages,
    preset: str | None,
    seed: int = 0,
    step: Callable[[], None] | None = None,
    batch: int = 16,
) -> np.ndarray:
    """Probabilities ``(n, n_labels)`` of every image, through the named purifier preset or none.

    ``step`` is called once an image.
    """
    from edge_mdda.mdda.purifier import Purifier

    manifest = classifier.manifest
    size = manifest.height, manifest.width
    purifier = Purifier(*size, PRESETS[preset]) if preset else None
    rows, waiting = [], []
    for path, image in zip(data.paths, iter_images(data, *size, manifest.crop), strict=True):
        waiting.append(purifier.purify(image, purifier_seed(path, seed)) if purifier else image)
        if len(waiting) == batch:
            rows.append(classifier.predict(np.stack(waiting)))
            waiting.clear()
        if step:
            step()
    if waiting:
        rows.append(classifier.predict(np.stack(waiting)))
    return np.concatenate(rows)


def evaluate(
    classifier: Classifier,
    data: LabelledImages,
    purify: str = "on",
    preset: str = "balanced",
    seed: int = 0,
    step: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Figures with 95 % intervals for the purifier ``off``, ``on``, or ``both``.

    Returns
    -------
    dict
        The figures of the last mode at top level (``balanced_accuracy``, ``melanoma_recall``, ``n``, ``purify``, ...),
        each ``<name>_ci`` beside it, and every mode's figures under ``modes``.
    """
    labels, malignant = tuple(classifier.manifest.labels), classifier.manifest.malignant
    modes: dict[str, Any] = {}
    for mode in ("off", "on") if purify == "both" else (purify,):
        probabilities = predict_all(classifier, data, preset if mode == "on" else None, seed, step)

        def resampled(chosen: np.ndarray, probabilities: np.ndarray = probabilities) -> dict[str, float]:
            return figures(data.targets[chosen], probabilities[chosen], labels, malignant)

        values = resampled(np.arange(len(data)))
        intervals = bootstrap(resampled, data.targets, seed)
        modes[mode] = values | {f"{name}_ci": interval for name, interval in intervals.items()}
    last = list(modes)[-1]
    return {
        "purify": last,
        "preset": preset if last == "on" else None,
        "n": len(data),
        "set": data.name,
        "seed": seed,
        "model": {
            "name": classifier.manifest.name,
            "sha256": classifier.manifest.sha256,
            "runtime": classifier.runtime,
        },
        **modes[last],
        "modes": modes,
    }


def table(result: dict[str, Any]) -> str:
    """A markdown table of one evaluation."""
    modes = result["modes"]
    lines = ["| figure | " + " | ".join(f"purify {mode}" for mode in modes) + " |", "| --- |" + " --- |" * len(modes)]
    recalls = (name for name in next(iter(modes.values())) if name.startswith("recall_") and not name.endswith("_ci"))
    for name in (*SHOWN, *recalls):
        cells = [f"{m[name]:.3f} ({m[name + '_ci'][0]:.3f} to {m[name + '_ci'][1]:.3f})" for m in modes.values()]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    model = result["model"]
    lines.append(
        f"\n{result['n']} images ({result['set']}), {model['name']} {model['sha256'][:12]}, {model['runtime']}"
    )
    return "\n".join(lines)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON through a temporary file; NaN becomes null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and value != value else value

    replace_file(str(path), (json.dumps(plain(content), indent=2, allow_nan=False) + "\n").encode())
