"""Fine-tune an EfficientNet-Lite on labelled lesions, with the purifier in the training data.

The classes are sampled by the square root of their size and the rest of the imbalance is taken out
by logit adjustment, so the network's probabilities assume that all classes are equally likely.

References
----------
A. K. Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from export.dataset import SIDE, DatasetError, LabelledImages, decode_all, read_split
from export.options import TrainOptions
from export.train.augment import RandomPurifier, random_view, shipped_presets
from export.train.loop import Progress, StepLog, descend, follow, kept_share, restore, stored_run, weight_groups

SAMPLING_POWER = 0.5  # class probability ~ count ** SAMPLING_POWER
PREFETCHED_BATCHES = 3
WARMUP_SHARE = 0.05
FINAL_LR_SHARE = 0.02
GRADIENT_CLIP = 2.0


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of unmapping them: 4.6 -> 11 images/s on one Zen 3 core.

    Each activation is tens of megabytes, and page faults on fresh maps cost more than the arithmetic.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # <malloc.h>
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)
        libc.mallopt(m_top_pad, 256 << 20)
    except (OSError, AttributeError):
        return  # another C library: only slower


def file_hash(path: Path) -> str:
    """SHA-256 of a file, to tell whether a run is resumed with the same data."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_of(data_root: Path, labels: Sequence[str], options: Mapping[str, Any], init: Path | None) -> dict[str, Any]:
    """What a run is known by: stored in its checkpoint, and compared when it is resumed."""
    return {
        "labels": list(labels),
        "options": dict(options),
        "init": file_hash(init) if init else "imagenet",
        "label_hash": file_hash(data_root / "labels.csv"),
        "purifier": shipped_presets(),
    }


class Batches:
    """Endless random batches, each a function of (seed, step) alone, made ahead in threads."""

    def __init__(self, images: np.ndarray, data: LabelledImages, options: TrainOptions) -> None:
        self.images, self.options = images, options
        counts = data.class_counts().astype(float)
        prior = counts**SAMPLING_POWER
        self.prior = prior / prior.sum()
        self.by_class = [np.flatnonzero(data.targets == c) for c in range(len(data.labels))]
        self.purifier = RandomPurifier(options.purify_share)

    def make(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch ``step``: ``(batch, size, size, 3)`` uint8 and ``(batch,)`` int64."""
        rng = np.random.default_rng((self.options.seed, step))
        size = self.options.size
        targets = rng.choice(len(self.prior), self.options.batch, p=self.prior)
        batch = np.empty((self.options.batch, size, size, 3), np.uint8)
        for row, target in zip(batch, targets, strict=True):
            image = self.images[rng.choice(self.by_class[target])]
            row[:] = self.purifier(random_view(image, size, rng), rng)
        return batch, targets

    def ahead(self, first: int, last: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches ``first`` to ``last - 1`` in order."""
        with ThreadPoolExecutor(1) as pool:
            waiting = [pool.submit(self.make, s) for s in range(first, min(first + PREFETCHED_BATCHES, last))]
            for step in range(first, last):
                if step + PREFETCHED_BATCHES < last:
                    waiting.append(pool.submit(self.make, step + PREFETCHED_BATCHES))
                yield waiting.pop(0).result()


def learning_rate(step: int, options: TrainOptions) -> float:
    """Linear warm-up, then a cosine down to a small share of the peak."""
    warmup = max(1, int(WARMUP_SHARE * options.steps))
    if step < warmup:
        return options.lr * (step + 1) / warmup
    phase = (step - warmup) / max(1, options.steps - warmup)
    return options.lr * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * 0.5 * (1 + math.cos(math.pi * phase)))


def train(
    data_root: Path,
    out: Path,
    options: TrainOptions,
    *,
    init: Path | None = None,
    threads: int = 1,
    checkpoint_every: int = 100,
    progress: Progress | None = None,
) -> Path:
    """Train on the ``train`` split of ``data_root`` and return the checkpoint's path.

    A checkpoint of the same options and presets in ``out`` is resumed. ``out/log.jsonl`` gets a line every few steps.

    Parameters
    ----------
    data_root : Path
        Folder with ``images/`` and ``labels.csv``.
    out : Path
        Folder for ``checkpoint.pt`` and ``log.jsonl``.
    options : TrainOptions
        The run.
    init : Path, optional
        Start from this checkpoint's averaged weights instead of ImageNet's.
    threads : int
        Threads of the tensor library.
    checkpoint_every : int
        Steps between two checkpoints.
    progress : callable, optional
        Called with ``(step, steps, loss, images_per_second)``.
    """
    keep_freed_memory()
    import torch
    from torch.nn import functional

    from export.train.network import (
        CheckpointError,
        LesionNet,
        network_from_checkpoint,
        save_checkpoint,
    )

    torch.set_num_threads(threads)
    torch.manual_seed(options.seed)
    data = read_split(data_root, "train")
    empty = [label for label, n in zip(data.labels, data.class_counts(), strict=True) if n == 0]
    if empty:
        raise DatasetError(f"{data_root}: no training image of class {', '.join(empty)}")
    run = run_of(data_root, data.labels, asdict(options), init)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "checkpoint.pt"

    if init is None:
        network = LesionNet(len(data.labels), arch=options.arch, pretrained=True)
    else:
        network = network_from_checkpoint(init)[0]
        if network.arch != options.arch:
            raise CheckpointError(f"{init}: holds {network.arch}; go on with --arch {network.arch}")
    average = LesionNet(len(data.labels), arch=options.arch)
    average.load_state_dict(network.state_dict())
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(weight_groups(network, options.weight_decay), lr=options.lr)
    stored = stored_run(path, run)
    first = restore(stored, {"network": network, "ema": average, "optimiser": optimiser})
    if stored is not None:
        torch.set_rng_state(stored["torch_rng"])

    def save(step: int) -> None:
        state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
        state |= {"ema": average.state_dict(), "torch_rng": torch.get_rng_state()}
        save_checkpoint(path, run | {"step": step} | state)

    batches = Batches(decode_all(data, SIDE, SIDE), data, options)
    log_prior = torch.log(torch.from_numpy(batches.prior).float())
    with StepLog(out / "log.jsonl", first, options.steps, options.batch, progress) as log:
        for step, (pixels, targets) in enumerate(batches.ahead(first, options.steps), start=first):
            inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()  # NHWC memory = channels_last
            logits = network(inputs)
            loss = functional.cross_entropy(
                logits + log_prior, torch.from_numpy(targets), label_smoothing=options.label_smoothing
            )
            value = descend(optimiser, network, loss, learning_rate(step, options), GRADIENT_CLIP)
            follow(average, network, kept_share(options.ema, step))
            log.add(step + 1, loss=value)
            if (step + 1) % checkpoint_every == 0 or step + 1 == options.steps:
                save(step + 1)
    return path
