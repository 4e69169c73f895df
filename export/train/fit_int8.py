"""Make a trained network fit for int8: ranges, fitted rounding, and fine-tuning with the rounding in the loop.

The float network is the teacher: its own logits are the target, no label is used. The checkpoint keeps plain
float weights that lie on their int8 grid, and the ranges of the activations; an exporter that scales weights
by the largest of each output channel and takes these ranges computes what was fitted here.

References
----------
B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mdda.mdda.params import PRESETS
from export.dataset import SIDE, LabelledImages, decode_all, iter_images, read_split
from export.evaluate import purifier_seed
from export.options import Int8Options, TrainOptions
from export.train.fine_tune import Batches, keep_freed_memory, learning_rate, run_of
from export.train.loop import Progress, StepLog, descend, follow, kept_share, restore, stored_run

if TYPE_CHECKING:
    import torch

    from export.train.fake_quant import Range

LOGIT_WEIGHT = 0.5  # of the squared error of the logits, beside the divergence of the probabilities
GRADIENT_CLIP = 1.0


class PlainBatches(Batches):
    """Random training images, turned and mirrored only: what is fitted should see what the board sees."""

    def make(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch ``step``: ``(batch, h, w, 3)`` uint8 and ``(batch,)`` int64."""
        rng = np.random.default_rng((self.options.seed, step))
        chosen = rng.choice(len(self.images), self.options.batch)
        batch = self.images[chosen]
        for row in batch:
            view = np.rot90(row, int(rng.integers(4)))
            view = np.ascontiguousarray(view[:, ::-1] if rng.random() < 0.5 else view)
            row[:] = self.purifier(view, rng)
        return batch, chosen


def fitting_images(data: LabelledImages, count: int, seed: int) -> np.ndarray:
    """``(count, SIDE, SIDE, 3)`` random images, every second one purified as the board does."""
    from edge_mdda.mdda.purifier import Purifier

    chosen = np.random.default_rng(seed).choice(len(data), min(count, len(data)), replace=False)
    subset = LabelledImages(tuple(data.paths[i] for i in chosen), data.targets[chosen], data.labels, data.name)
    out = np.empty((len(subset), SIDE, SIDE, 3), np.uint8)
    with Purifier(SIDE, SIDE, PRESETS["balanced"]) as purifier:
        for n, (path, image) in enumerate(zip(subset.paths, iter_images(subset, SIDE, SIDE), strict=True)):
            out[n] = purifier.purify(image, purifier_seed(path, seed)) if n % 2 else image
    return out


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Divergence of the probabilities plus squared error of the logits, a common shift of all classes aside."""
    import torch
    from torch.nn import functional

    divergence = functional.kl_div(
        torch.log_softmax(student, 1), torch.log_softmax(teacher, 1), reduction="batchmean", log_target=True
    )
    gap = student - teacher
    return divergence + LOGIT_WEIGHT * (gap - gap.mean(1, keepdim=True)).square().mean()


def stored_ranges(content: dict) -> dict[str, Range] | None:
    """The activation ranges of a checkpoint, by name and in the order of execution; None if it has none."""
    ranges = content.get("ranges")
    return None if ranges is None else {name: (low, high) for name, (low, high) in ranges.items()}


def fit_int8(
    data_root: Path,
    checkpoint: Path,
    out: Path,
    options: Int8Options,
    *,
    threads: int = 1,
    checkpoint_every: int = 25,
    progress: Progress | None = None,
) -> Path:
    """Fit a checkpoint to int8 on the ``train`` split of ``data_root`` and return the new checkpoint's path.

    A checkpoint of the same run in ``out`` is resumed. ``out/log.jsonl`` gets a line every few steps.

    Parameters
    ----------
    data_root : Path
        Folder with ``images/`` and ``labels.csv``.
    checkpoint : Path
        Of ``python -m export train``: start and teacher.
    out : Path
        Folder for ``checkpoint.pt`` and ``log.jsonl``.
    options : Int8Options
        The run.
    threads : int
        Threads of the tensor library.
    checkpoint_every : int
        Steps between two checkpoints.
    progress : callable, optional
        Called with ``(step, steps, loss, images_per_second)``.
    """
    keep_freed_memory()
    import torch

    from export.train.fake_quant import FakeQuantNet
    from export.train.network import CheckpointError, network_from_checkpoint, save_checkpoint
    from export.train.rounding import calibrate, round_network, to_batch

    torch.set_num_threads(threads)
    teacher, content = network_from_checkpoint(checkpoint)
    if stored_ranges(content) is not None:
        raise CheckpointError(f"{checkpoint}: is fitted to int8 already; start from the float network's checkpoint")
    data = read_split(data_root, "train", tuple(content["labels"]))
    run = run_of(data_root, data.labels, asdict(options) | {"arch": teacher.arch}, checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "checkpoint.pt"
    stored = stored_run(path, run)
    if stored is None:
        images = fitting_images(data, options.fit_images, options.seed)
        student = round_network(teacher, calibrate(teacher, images), images, options.float_layers, options.seed)
        average = FakeQuantNet(teacher, student.ranges, options.float_layers)
        average.load_state_dict(student.state_dict())
    else:
        student, average = (FakeQuantNet(teacher, stored_ranges(stored), options.float_layers) for _ in range(2))
    optimiser = torch.optim.Adam(student.parameters(), lr=options.lr)
    parts: dict[str, Any] = {"student": student, "average": average, "optimiser": optimiser}
    first = restore(stored, parts)

    def save(step: int) -> None:
        fitted = {
            "step": step,
            "float_layers": [layer.name for layer in student.in_order() if layer.exact],
            "ranges": {name: list(bounds) for name, bounds in student.ranges.items()},
            "ema": average.to_network().state_dict(),
        } | {name: part.state_dict() for name, part in parts.items()}
        save_checkpoint(path, run | fitted)

    if stored is None:
        save(0)
    if first < options.steps:
        schedule = TrainOptions(
            steps=options.steps, batch=max(2, options.batch), lr=options.lr, purify_share=options.purify_share,
            seed=options.seed,
        )  # fmt: skip
        batches = PlainBatches(decode_all(data, SIDE, SIDE), data, schedule)
        exact = FakeQuantNet(teacher, n_float=None).eval()  # the teacher without batch norms: twice as fast
        with StepLog(out / "log.jsonl", first, options.steps, schedule.batch, progress) as log:
            for step, (pixels, _) in enumerate(batches.ahead(first, options.steps), start=first):
                inputs = to_batch(pixels)
                with torch.no_grad():
                    target = exact(inputs)
                loss = distillation_loss(student(inputs), target)
                value = descend(optimiser, student, loss, learning_rate(step, schedule), GRADIENT_CLIP)
                follow(average, student, kept_share(options.ema, step))
                log.add(step + 1, loss=value)
                if (step + 1) % checkpoint_every == 0 or step + 1 == options.steps:
                    save(step + 1)
    return path
