"""Between uint8 images and a model's tensors, the same for every runtime."""

from __future__ import annotations

import numpy as np

from edge_mdda.classifier.manifest import Manifest
from edge_mdda.errors import ModelError


def check_batch(batch: np.ndarray, manifest: Manifest) -> None:
    """Raise ValueError unless ``batch`` is ``(n, height, width, 3)`` uint8 of the model's size."""
    expected = (manifest.height, manifest.width, 3)
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != expected:
        raise ValueError(f"batch: expected uint8 (n, {', '.join(map(str, expected))}), got {batch.dtype} {batch.shape}")


def to_input(image: np.ndarray, manifest: Manifest, dtype: np.dtype | type) -> np.ndarray:
    """One image as the model's input tensor ``(1, ...)``."""
    tensor = image
    if dtype != np.uint8:
        tensor = image.astype(np.float32)
        tensor -= np.float32(manifest.mean)  # in place: a board has better uses for its memory
        tensor /= np.float32(manifest.std)
    if manifest.layout == "NCHW":
        tensor = tensor.transpose(2, 0, 1)
    return np.ascontiguousarray(tensor[None], dtype=dtype)


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Distributions ``(n, n_labels)`` as if their logits were divided by ``temperature``; float32.

    Above 1 they become less certain. The order of the classes stays.
    """
    if temperature == 1.0:
        return np.asarray(probabilities, np.float32)
    powers = np.asarray(probabilities, np.float64) ** (1 / temperature)
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def to_probabilities(output: np.ndarray, manifest: Manifest) -> np.ndarray:
    """Rows of probabilities, float32, from what the graph returned, at the manifest's temperature.

    Raises
    ------
    ModelError
        The model returned something that is no distribution over its labels.
    """
    values = np.asarray(output, np.float64)
    if values.ndim != 2 or values.shape[1] != len(manifest.labels):
        raise ModelError(
            f"{manifest.file}: output has shape {values.shape}, the manifest has {len(manifest.labels)} labels"
        )
    if manifest.output == "logits":
        values = np.exp(values - values.max(axis=1, keepdims=True))
    total = values.sum(axis=1, keepdims=True)
    if not np.isfinite(values).all() or (values < 0).any() or (total <= 0).any():
        raise ModelError(f"{manifest.file}: the model returned no probabilities; export it again")
    return with_temperature(values / total, manifest.temperature)
