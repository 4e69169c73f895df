"""What goes wrong before a conversion: pixels of the wrong scale, a network in training mode, answers that say nothing.

A conversion keeps the answers of the network that it is given. Where that network answers nonsense, for it sees other
pixels than it was trained on, the result agrees with it perfectly. What is certain is refused, with the remedy; what is
only likely is a warning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from export.errors import ExportError
from export.metrics import auroc, balanced_accuracy

if TYPE_CHECKING:
    import onnx
    import torch

    from export.convert.request import Judged
    from export.convert.sources import Source

Numbers = tuple[float, ...]
LARGE = 50.0  # a divisor from here on is of pixels in 0..255: 58 for ImageNet's spread, 127.5, 255
WHITE = 255.0
SCALES: dict[str, tuple[Numbers, Numbers]] = {
    "--mean 0 --std 1": ((0.0,), (1.0,)),
    "--std 255": ((0.0,), (255.0,)),
    "--mean 127.5 --std 127.5": ((127.5,), (127.5,)),
    "--mean 123.7,116.3,103.5 --std 58.4,57.1,57.4": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}
"""Preprocessings of pixels in 0..255 that networks are trained with."""
TRIED = 96  # labelled pictures that each of them is tried on
BETTER = 0.2  # of balanced accuracy, before another one is worth a warning
LEAST = 24  # pictures; with fewer such a gain is chance
TELLS = 0.6  # AUROC of the malignant share from which one top class is a matter of the threshold
THROUGH = {"Identity", "Cast", "Transpose", "Pad"}  # nodes that leave the pixels' values alone


def _listed(values: Numbers) -> str:
    return ",".join(f"{value:g}" for value in values)


def check_scale(mean: Numbers, std: Numbers) -> None:
    """Refuse a mean and spread of pixels in 0..1: the pixels here are in 0..255.

    Raises
    ------
    ExportError
        With the same numbers times 255.
    """
    shifts = any(mean)
    small_mean = shifts and max(map(abs, mean)) <= 1
    small_std = max(std) <= 1 and (min(std) < 1 or small_mean)
    if small_mean or small_std:
        fixed = f"--mean {_listed(tuple(WHITE * m for m in mean))} --std {_listed(tuple(WHITE * s for s in std))}"
        if small_mean and max(std) >= LARGE:
            fixed = f"--mean {_listed(tuple(WHITE * m for m in mean))} --std {_listed(std)}"
        raise ExportError(
            f"--mean {_listed(mean)} --std {_listed(std)} are of pixels in 0..1, but they hold for pixels in 0..255;"
            f" give {fixed}"
        )


def _constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    from onnx import numpy_helper

    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                known[node.output[0]] = numpy_helper.to_array(attribute.t)
    return known


def own_normalisation(model: onnx.ModelProto, pixels: str) -> tuple[float, float]:
    """What the graph does to its pixels before the first layer: ``(shift, factor)``.

    ``shift`` is the first constant that is taken away while the pixels still have their own scale, 0 without one;
    ``factor`` is what they are multiplied by in all.
    """
    known = _constants(model)
    shift, factor, value = 0.0, 1.0, pixels
    while True:
        readers = [node for node in model.graph.node if value in node.input]
        if len(readers) != 1:
            return shift, factor
        node = readers[0]
        others = [known.get(part) for part in node.input if part != value]
        if node.op_type in ("Sub", "Add", "Div", "Mul") and len(others) == 1 and others[0] is not None:
            size = float(np.abs(others[0]).max())
            if node.op_type in ("Sub", "Add"):
                shift = shift or (size if factor == 1 else 0.0)
            elif size:
                factor = factor * size if node.op_type == "Mul" else factor / size
        elif node.op_type not in THROUGH:
            return shift, factor
        value = node.output[0]


def check_own_scale(model: onnx.ModelProto, pixels: str, mean: Numbers, std: Numbers, name: str) -> None:
    """Refuse a normalisation that the graph has too, or one in it that wants pixels in 0..1.

    Raises
    ------
    ExportError
        With what to give instead.
    """
    shift, factor = own_normalisation(model, pixels)
    if factor <= 1 / LARGE and max(std) >= LARGE:
        raise ExportError(
            f"{name}: divides its pixels by {1 / factor:.4g} itself, and --std {_listed(std)} does so again;"
            " leave --mean and --std out"
        )
    if 0 < shift <= 1 and max(std) < LARGE:
        raise ExportError(
            f"{name}: takes {shift:.3g} away from its pixels, so it wants them in 0..1, and here they are in 0..255;"
            " give --std 255"
        )


def check_training_mode(model: onnx.ModelProto, name: str) -> None:
    """Refuse a graph whose batch norms or dropouts are in training mode: its answers depend on chance or on the batch.

    Raises
    ------
    ExportError
        The first such node.
    """
    known = _constants(model)
    for node in model.graph.node:
        training = False
        if node.op_type == "BatchNormalization":
            mode = any(a.name == "training_mode" and a.i for a in node.attribute)
            training = mode or sum(map(bool, node.output)) > 1
        elif node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in known:
            training = bool(known[node.input[2]])
        if training:
            raise ExportError(
                f"{name}: {node.op_type} '{node.name}' is in training mode; call network.eval() before the export, and"
                " do not switch it back in forward()"
            )


def check_batch_norms(network: torch.nn.Module, name: str) -> tuple[str, ...]:
    """Refuse batch norms that keep no statistics; warn where all have those of a fresh network.

    Raises
    ------
    ExportError
        A layer without running statistics: it is in training mode for ever.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    layers: list[tuple[str, Any]] = [(n, m) for n, m in network.named_modules() if isinstance(m, _BatchNorm)]
    for place, layer in layers:
        if layer.running_mean is None or layer.running_var is None:
            raise ExportError(
                f"{name}: the batch norm '{place}' keeps no running statistics, so it depends on the batch and a board"
                " has one picture; train with track_running_stats=True"
            )
    fresh = [layer for _, layer in layers if not layer.running_mean.any() and bool((layer.running_var == 1).all())]
    if layers and len(fresh) == len(layers):
        return (
            f"{name}: every batch norm has the statistics of a network that saw no picture (mean 0, variance 1); were"
            " the weights saved after training, with the buffers?",
        )
    return ()


def check_classes(targets: np.ndarray | None, labels: tuple[str, ...], name: str) -> None:
    """Refuse pictures to judge by that all show the same.

    Raises
    ------
    ExportError
        Names the class.
    """
    if targets is not None and len(found := np.unique(targets)) == 1:
        raise ExportError(
            f"all {len(targets)} pictures to judge by ({name}) are '{labels[found[0]]}': they cannot tell whether the"
            " network still tells classes apart; name a set of two classes at least with --verify and --verify-labels"
        )


def check_answers(source: Source, judged: Judged, say: Callable[[str], None]) -> None:
    """Refuse a network that gives one answer to everything, and warn of another preprocessing that fits better.

    Raises
    ------
    ExportError
        One class for all labelled pictures, and no order by malignant share either. Without labels it is a warning.
    """
    answers, targets = next(iter(judged.answers.values())), judged.pictures.targets
    fitting = better_scale(source, judged)
    if fitting:
        say(f"warning: {fitting}")
    labels = tuple(source.labels)
    tops = np.unique(answers.argmax(axis=1))
    if len(tops) == 1:
        columns = [labels.index(label) for label in source.malignant]
        what = f"{source.name} answers '{labels[tops[0]]}' to all {len(answers)} pictures to judge by"
        remedy = fitting or "check --mean, --std, --layout, the order of --labels and the weights"
        known = targets is not None and auroc(np.isin(targets, columns), answers[:, columns].sum(axis=1))
        if targets is not None and not (known and known >= TELLS):
            raise ExportError(f"{what}; {remedy}")
        say(f"warning: {what}; {remedy}")


def better_scale(source: Source, judged: Judged) -> str:
    """What to say of another preprocessing with which the network is right much more often; empty without one."""
    targets = judged.pictures.targets
    if source.predict_at is None or targets is None or len(targets) < LEAST:
        return ""
    view, images = next(iter(judged.views.items()))
    # Evenly over the set: label files often stand in the order of their classes.
    chosen = np.unique(np.linspace(0, len(targets) - 1, min(TRIED, len(targets))).astype(int))
    n_labels = len(source.labels)

    def score(outputs: np.ndarray) -> float:
        return balanced_accuracy(targets[chosen], outputs.argmax(axis=1), n_labels)

    here = score(judged.answers[view][chosen])
    found = {name: score(source.predict_at(*scale)(images[chosen])) for name, scale in SCALES.items()}
    best = max(found, key=found.__getitem__)
    if found[best] < here + BETTER:
        return ""
    return (
        f"on {len(chosen)} labelled pictures {source.name} has a balanced accuracy of {here:.2f} as it is given, and"
        f" {found[best]:.2f} with {best}; check --mean and --std"
    )
