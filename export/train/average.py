"""The mean of two checkpoints that began as one: between what each of them is good at, for the price of neither.

Two networks trained on from the same weights lie in one valley of the loss, so a point between them is a network too,
and often a better one than both.

References
----------
M. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022 (between a robust and an accurate network).
M. Wortsman et al., "Model soups", ICML 2022.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from export.errors import ExportError
from export.train.fine_tune import file_hash
from export.train.harden import KEPT_NAME


def average(first: Path, second: Path, share: float, out: Path) -> Path:
    """Write ``out/checkpoint.pt`` with the weights ``(1 - share) * first + share * second``.

    The perturbations that ``harden`` kept beside the first go along, for a run that hardens the mean further.

    Batch norms are folded into the convolutions before: their statistics belong to each network's own weights.

    Parameters
    ----------
    first, second : Path
        Checkpoints of one architecture and the same labels; the first may be an ONNX file of this project, with its
        manifest.
    share : float
        Of the second, 0 to 1.
    out : Path
        Folder.

    Raises
    ------
    ExportError
        The networks do not go together.
    CheckpointError
        One cannot be read.
    """
    from export.train.fake_quant import FakeQuantNet
    from export.train.from_onnx import open_network
    from export.train.network import save_checkpoint

    (a, content), (b, other) = open_network(first), open_network(second)
    if a.arch != b.arch or content["labels"] != other["labels"]:
        raise ExportError(f"{first} and {second}: not the same architecture and labels, nothing lies between them")
    mean, end = FakeQuantNet(a, n_float=None), FakeQuantNet(b, n_float=None)
    weights = {
        name: value.lerp(end.state_dict()[name], share) if value.is_floating_point() else value
        for name, value in mean.state_dict().items()
    }
    mean.load_state_dict(weights)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "checkpoint.pt"
    kept = first.parent / KEPT_NAME
    if kept.exists() and first.parent.resolve() != out.resolve():
        shutil.copyfile(kept, out / KEPT_NAME)
    about = {"share": share, "init": [file_hash(first), file_hash(second)], "label_hash": content.get("label_hash")}
    options = {"arch": a.arch}
    save_checkpoint(
        path, {"labels": content["labels"], "options": options, "ema": mean.to_network().state_dict()} | about
    )
    return path
