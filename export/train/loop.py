"""What every training loop of this package does: descend, average, log, and go on only with the same run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mdda.errors import EdgeMddaError
from edge_mdda.files import replace_file

if TYPE_CHECKING:
    import torch

LOG_EVERY = 20  # steps

Progress = Callable[[int, int, float, float], None]
"""Called with ``(step, steps, loss, images_per_second)``."""


def descend(
    optimiser: torch.optim.Optimizer, network: torch.nn.Module, loss: torch.Tensor, lr: float, clip: float
) -> float:
    """One step along the clipped gradient; returns the loss."""
    import torch

    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimiser.step()
    return loss.item()


def weight_groups(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What an optimiser takes: weights decay, biases and the scales of norms do not; frozen ones are left out."""
    trained = [p for p in network.parameters() if p.requires_grad]
    decayed, plain = ([p for p in trained if (p.ndim > 1) is wide] for wide in (True, False))
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def stored_run(path: Path, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """The checkpoint to go on from; None where there is none. EdgeMddaError if another run made it."""
    from export.train.network import load_checkpoint

    if not path.exists():
        return None
    stored = load_checkpoint(path)
    require_same_run(stored, run, path)
    return stored


def restore(stored: Mapping[str, Any] | None, parts: Mapping[str, Any]) -> int:
    """Load each part (networks, optimiser) from what was stored under its name; returns the step to go on from."""
    if stored is None:
        return 0
    for name, part in parts.items():
        part.load_state_dict(stored[name])
    return int(stored["step"])


def kept_share(decay: float, step: int) -> float:
    """Of an average that follows quickly at first, else the start would weigh in for a thousand steps."""
    return min(decay, (1 + step) / (10 + step))


def follow(average: torch.nn.Module, network: torch.nn.Module, keep: float) -> None:
    """Move the averaged weights towards the network's; what is no number with a fraction is copied."""
    import torch

    with torch.no_grad():
        for mean, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now.detach(), 1 - keep)
            else:
                mean.copy_(now)


def require_same_run(stored: Mapping[str, Any], run: Mapping[str, Any], path: Path) -> None:
    """EdgeMddaError unless a checkpoint was made by this very run."""
    if any(stored.get(name) != value for name, value in run.items()):
        why = "made with other options, data, network or presets; choose another --out or remove it"
        raise EdgeMddaError(f"{path}: {why}")


def forget_after(log: Path, step: int) -> None:
    """Drop what a killed run logged after its last checkpoint; it will be logged again."""
    if log.exists():
        kept = [line for line in log.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= step]
        replace_file(str(log), "".join(line + "\n" for line in kept).encode())


class StepLog:
    """``log.jsonl`` of one run, a line every few steps, and the caller's progress.

    Parameters
    ----------
    path : Path
        The file; what a killed run logged after step ``first`` is dropped.
    first, steps : int
        Where this run begins and ends.
    batch : int
        Images a step.
    progress : callable, optional
    """

    def __init__(self, path: Path, first: int, steps: int, batch: int, progress: Progress | None) -> None:
        forget_after(path, first)
        self.file = path.open("a", encoding="utf-8")
        self.first, self.steps, self.batch, self.progress = first, steps, batch, progress
        self.started = time.monotonic()
        self.values: dict[str, list[float]] = {}

    def __enter__(self) -> StepLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def add(self, done: int, **values: float) -> None:
        """The values of step number ``done``, ``loss`` among them; EdgeMddaError when that is no number."""
        if not math.isfinite(values["loss"]):
            raise EdgeMddaError(f"the loss is no number at step {done}; lower --lr")
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)
        if done % LOG_EVERY == 0 or done == self.steps:
            rate = (done - self.first) * self.batch / (time.monotonic() - self.started)
            means = {name: round(float(np.mean(seen)), 5) for name, seen in self.values.items()}
            self.file.write(json.dumps({"step": done, **means, "images_per_s": round(rate, 2)}) + "\n")
            self.file.flush()
            self.values.clear()
            if self.progress:
                self.progress(done, self.steps, means["loss"], rate)
