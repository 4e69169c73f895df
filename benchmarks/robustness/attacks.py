"""Attacks on a network's gradient, from torchattacks, with every parameter spelt out.

All are untargeted against the true label, with cross entropy where the paper leaves the loss open, in the maximum norm.
What they return is rounded to whole grey levels and clipped, so that every image is one that a file can hold.
None of these attackers knows the defence; see :mod:`benchmarks.robustness.adaptive` for the one who does.

References
----------
H. Kim, "Torchattacks: a PyTorch repository for adversarial attacks", arXiv 2010.01950.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.robustness.cache import seed_of
from benchmarks.robustness.errors import RobustnessError

GREY_MAX = 255
STEP_SHARE = 0.25
"""Of eps, a step of the iterated attacks: ten steps can cross the ball more than once."""
ITERATIONS = 10
DEEPFOOL_STEPS = 20
DEEPFOOL_SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""How far along DeepFool's direction to go at most: its smallest step is lost when pixels are rounded."""
DEEPFOOL_MARGIN = 0.5
"""Difference of logits by which the network must be wrong: the int8 file rounds, and a hair's breadth is lost there."""

Parameters = Mapping[str, Any]
UnitAttack = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Images ``(n, 3, h, w)`` float in 0..1 and labels to attacked images in the same form."""


@dataclass(frozen=True)
class Attack:
    """One attack on a network.

    Attributes
    ----------
    name : str
        As it stands in the rows.
    label : str
        For tables and figures.
    source : str
        The paper.
    parameters : callable
        ``(eps in grey levels, quick)`` to all parameters by name; plain values.
    build : callable
        ``(network for pixels in 0..1, parameters, seed)`` to the attack.
    """

    name: str
    label: str
    source: str
    parameters: Callable[[float, bool], dict[str, Any]]
    build: Callable[[nn.Module, Parameters, int], UnitAttack]


class UnitPixels(nn.Module):
    """A network for pixels in 0..255 as the library wants it: for pixels in 0..1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of ``(n, 3, h, w)`` in 0..1."""
        return self.network(pixels * GREY_MAX)


def library() -> Any:
    """The package torchattacks; RobustnessError if it is not installed."""
    try:
        import torchattacks
    except ImportError as error:
        raise RobustnessError(
            'the package torchattacks is not installed; run: pip install -e ".[robustness]"'
        ) from error
    return torchattacks


def whole_pixels(attacked: torch.Tensor, clean: np.ndarray, eps: float) -> np.ndarray:
    """Round ``(n, 3, h, w)`` in 0..255 to ``(n, h, w, 3)`` uint8 within ``eps`` of ``clean``.

    A value that is no number (a library's division by a gradient of zero) becomes the clean one.
    """
    values = attacked.detach().cpu().permute(0, 2, 3, 1).double().numpy()
    original = clean.astype(np.int32)
    whole = np.rint(np.where(np.isfinite(values), values, original)).astype(np.int32)
    reach = int(eps)
    out = np.clip(np.clip(whole, original - reach, original + reach), 0, GREY_MAX).astype(np.uint8)
    assert np.abs(out.astype(np.int32) - original).max(initial=0) <= reach
    return out


def to_tensor(images: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """``(n, h, w, 3)`` uint8 as ``(n, 3, h, w)`` float32 in 0..255, channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float()


def margins(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Logit of the true class less the largest other, ``(n,)``; negative is wrong."""
    own = logits.gather(1, targets[:, None])
    others = logits.scatter(1, targets[:, None], -torch.inf).amax(1)
    return own[:, 0] - others


def attack_images(
    attack: Attack, network: nn.Module, images: np.ndarray, targets: np.ndarray, parameters: Parameters, key: str
) -> np.ndarray:
    """Attack one batch.

    Parameters
    ----------
    network : nn.Module
        Logits of ``(n, 3, h, w)`` float in 0..255, differentiable.
    images : (n, h, w, 3) uint8
    targets : (n,) int64
        True classes.
    parameters : mapping
        Of :attr:`Attack.parameters`; its ``eps`` bounds the result.
    key : str
        Hexadecimal; seeds whatever is random.

    Returns
    -------
    (n, h, w, 3) uint8
    """
    device = str(next(network.parameters()).device)
    torch.manual_seed(seed_of(key))
    run = attack.build(UnitPixels(network).eval(), parameters, seed_of(key) & 0x7FFFFFFF)
    attacked = run(to_tensor(images, device) / GREY_MAX, torch.from_numpy(targets).to(device))
    return whole_pixels(attacked * GREY_MAX, images, parameters["eps"])


def _unit(parameters: Parameters, *names: str) -> dict[str, Any]:
    """The library's arguments by our names; grey levels become shares of 255."""
    in_grey = {"eps": "eps", "step_size": "alpha"}
    return {
        in_grey.get(name, name): parameters[name] / GREY_MAX if name in in_grey else parameters[name] for name in names
    }


def _fgsm(network: nn.Module, p: Parameters, _: int) -> UnitAttack:
    return library().FGSM(network, **_unit(p, "eps"))


def _pgd(network: nn.Module, p: Parameters, _: int) -> UnitAttack:
    return library().PGD(network, **_unit(p, "eps", "step_size", "steps", "random_start"))


def _mifgsm(network: nn.Module, p: Parameters, _: int) -> UnitAttack:
    return library().MIFGSM(network, **_unit(p, "eps", "step_size", "steps", "decay"))


def _difgsm(network: nn.Module, p: Parameters, _: int) -> UnitAttack:
    names = ("eps", "step_size", "steps", "decay", "resize_rate", "diversity_prob", "random_start")
    return library().DIFGSM(network, **_unit(p, *names))


def _autoattack(network: nn.Module, p: Parameters, seed: int) -> UnitAttack:
    """AutoAttack's own order of attackers, each on the images that the one before left; see the parameters."""
    tools, eps = library(), p["eps"] / GREY_MAX
    common = {"eps": eps, "norm": "Linf", "seed": seed}
    stages = [
        tools.APGD(network, steps=p["apgd_steps"], n_restarts=1, loss="ce", **common),
        tools.APGDT(network, steps=p["apgd_steps"], n_restarts=1, n_classes=p["n_classes"], **common),
    ]
    if p["fab_steps"]:
        stages.append(tools.FAB(network, steps=p["fab_steps"], multi_targeted=True, n_classes=p["n_classes"], **common))
    stages.append(tools.Square(network, n_queries=p["square_queries"], n_restarts=1, **common))
    return tools.MultiAttack(stages)


def _deepfool(network: nn.Module, p: Parameters, _: int) -> UnitAttack:
    """DeepFool's direction, stretched until the rounded and clipped image fools the network clearly, or to the last."""
    find = library().DeepFool(network, steps=p["steps"], overshoot=p["overshoot"])

    def run(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        change = (find(images, targets) - images).detach() * GREY_MAX
        clean = images * GREY_MAX
        out, left = clean.clone(), torch.ones(len(images), dtype=torch.bool, device=images.device)
        for scale in p["scales"]:
            tried = (clean + (scale * change).clamp(-p["eps"], p["eps"])).round().clamp(0, GREY_MAX)
            out[left] = tried[left]
            with torch.no_grad():
                left &= margins(network(out / GREY_MAX), targets) > -p["margin"]
            if not left.any():
                break
        return out / GREY_MAX

    return run


def _steps(eps: float, steps: int) -> dict[str, Any]:
    return {"eps": eps, "steps": steps, "step_size": eps * STEP_SHARE, "loss": "cross entropy"}


def _autoattack_parameters(eps: float, quick: bool) -> dict[str, Any]:
    return {
        "eps": eps,
        "stages": "APGD-CE, APGD-T, Square" if quick else "APGD-CE, APGD-T, FAB-T, Square",
        "apgd_steps": 20 if quick else 100,
        "fab_steps": 0 if quick else 100,
        "square_queries": 100 if quick else 5000,
        "restarts": 1,
        "n_classes": 7,
    }


_ATTACKS = (
    Attack(
        "fgsm",
        "FGSM",
        "I. Goodfellow, J. Shlens, C. Szegedy, Explaining and harnessing adversarial examples, ICLR 2015",
        lambda eps, quick: {"eps": eps, "loss": "cross entropy"},
        _fgsm,
    ),
    *(
        Attack(
            f"pgd{steps}",
            f"PGD-{steps}",
            "A. Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018",
            lambda eps, quick, steps=steps: _steps(eps, steps) | {"random_start": True, "restarts": 1},  # type: ignore[misc]
            _pgd,
        )
        for steps in (10, 50)
    ),
    Attack(
        "mifgsm",
        "MI-FGSM",
        "Y. Dong et al., Boosting adversarial attacks with momentum, CVPR 2018",
        lambda eps, quick: _steps(eps, ITERATIONS) | {"decay": 1.0},
        _mifgsm,
    ),
    Attack(
        "difgsm",
        "DI-FGSM",
        "C. Xie et al., Improving transferability of adversarial examples with input diversity, CVPR 2019",
        lambda eps, quick: (
            _steps(eps, ITERATIONS) | {"decay": 0.0, "resize_rate": 0.9, "diversity_prob": 0.5, "random_start": False}
        ),
        _difgsm,
    ),
    Attack(
        "deepfool",
        "DeepFool",
        "S. Moosavi-Dezfooli, A. Fawzi, P. Frossard, DeepFool, CVPR 2016; clipped to eps",
        lambda eps, quick: {
            "eps": eps,
            "steps": DEEPFOOL_STEPS,
            "overshoot": 0.02,
            "scales": list(DEEPFOOL_SCALES),
            "margin": DEEPFOOL_MARGIN,
        },
        _deepfool,
    ),
    Attack(
        "autoattack",
        "AutoAttack",
        "F. Croce, M. Hein, Reliable evaluation of adversarial robustness, ICML 2020",
        _autoattack_parameters,
        _autoattack,
    ),
)

ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _ATTACKS}
"""The attacks on the gradient of one image, by name."""
