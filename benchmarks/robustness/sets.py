"""Sets of attacked images: made batch by batch, each batch stored under its key, so that a kill costs one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from benchmarks.robustness import adaptive, attacks, black_box, sticker, universal
from benchmarks.robustness.cache import Cache, hash_code, key_of, seed_of, versions_of
from benchmarks.robustness.images import Photographs
from benchmarks.robustness.pipeline import Pipeline, describe

HERE = Path(__file__).parent
EXPORT = HERE.parents[1] / "export"
SHARED = (
    *(HERE / f"{name}.py" for name in ("sets", "attacks", "networks", "surrogate_file", "squeezenet")),
    *(EXPORT / f"{name}.py" for name in ("convert/rebuild", "convert/graphs", "train/network", "train/fake_quant")),
)
"""What every attack runs through: the twin and the surrogates are where its gradient comes from."""
PACKAGES = ("numpy", "torch", "torchattacks", "onnx")
BATCH = 16
"""Images a batch: on one Zen 3 core 0.045 s for an input gradient, against 0.052 s at 8; more only costs memory."""


@dataclass
class AttackedSet:
    """Attacked images and how they came about.

    Attributes
    ----------
    images : (n, h, w, 3) uint8
    keys : list of str
        Of the batches in the cache; see :func:`benchmarks.robustness.cache.load_images`.
    parameters : dict
        Of the attack.
    """

    images: np.ndarray
    parameters: dict[str, Any]
    keys: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Maker:
    """What all sets of a run share.

    Attributes
    ----------
    cache : Cache
    seed : int
    quick : bool
        Fewer steps and queries where an attack is expensive.
    batch : int
        Images a batch.
    step : callable
        Called after each batch.
    """

    cache: Cache
    seed: int = 0
    quick: bool = False
    batch: int = BATCH
    step: Callable[[], None] = lambda: None

    def on_gradient(self, name: str, network: nn.Module, digest: str, photos: Photographs, eps: float) -> AttackedSet:
        """A library's attack on one network; ``digest`` is its file's SHA-256."""
        attack = attacks.ATTACKS[name]
        parameters = attack.parameters(eps, self.quick)
        common = {"attack": name, "made_with": _made_with()}

        def make(part: slice, key: str) -> np.ndarray:
            targets = photos.data.targets[part]
            return attacks.attack_images(attack, network, photos.images[part], targets, parameters, key)

        return self._batches(photos, parameters, {**common, "network": digest}, make)

    def through_defence(
        self,
        name: str,
        network: nn.Module,
        digest: str,
        pipeline: Pipeline,
        photos: Photographs,
        eps: float,
        random: bool,
    ) -> AttackedSet:
        """BPDA and EOT through a defence; ``random`` says whether it has noise to average over."""
        parameters = adaptive.parameters(eps, random, smooth=adaptive.STAND_INS[name])
        common = {
            "attack": "adaptive",
            "made_with": _made_with("adaptive", "pipeline"),
            "defence": describe(pipeline.defence),
        }

        def make(part: slice, key: str) -> np.ndarray:
            targets = photos.data.targets[part]
            return adaptive.attack_through(
                network, pipeline.views, photos.images[part], targets, parameters, seed_of(key), self.batch
            )

        return self._batches(photos, parameters, {**common, "network": digest}, make)

    def by_scores(self, pipeline: Pipeline, photos: Photographs, eps: float, random: bool) -> AttackedSet:
        """Square through defence and int8 file."""
        parameters = black_box.parameters(eps, random, self.quick)
        manifest = pipeline.classifier.manifest
        common = {
            "attack": "square",
            "made_with": _made_with("black_box", "adaptive", "pipeline"),
            "runtime": pipeline.classifier.runtime,
            "defence": describe(pipeline.defence),
            "network": manifest.sha256,
            "temperature": manifest.temperature,
        }

        def make(part: slice, key: str) -> np.ndarray:
            return black_box.square(pipeline, photos.images[part], photos.data.targets[part], parameters, seed_of(key))

        return self._batches(photos, parameters, common, make)

    def for_all(
        self, name: str, network: nn.Module, digest: str, training: Photographs, photos: Photographs, eps: float
    ) -> AttackedSet:
        """The universal perturbation or the sticker: trained on ``training``, laid over ``photos``."""
        is_sticker = name == "sticker"
        module: Any = sticker if is_sticker else universal
        parameters = sticker.parameters(self.quick) if is_sticker else universal.parameters(eps, self.quick)
        parameters["training_images"] = len(training)
        key = key_of(
            attack=name,
            made_with=_made_with(name),
            network=digest,
            images=training.images,
            targets=training.data.targets,
            parameters=parameters,
            seed=self.seed,
        )

        def make() -> Mapping[str, np.ndarray]:
            return {"change": module.train(network, training.images, training.data.targets, parameters, seed_of(key))}

        change = self.cache.arrays(key, make)["change"]
        self.step()
        drawn = (
            sticker.apply(photos.images, change, parameters) if is_sticker else universal.apply(photos.images, change)
        )
        return AttackedSet(drawn, parameters, [key])

    def _parts(self, n: int) -> Iterator[slice]:
        return (slice(start, min(start + self.batch, n)) for start in range(0, n, self.batch))

    def _batches(
        self,
        photos: Photographs,
        parameters: dict[str, Any],
        common: dict[str, Any],
        make: Callable[[slice, str], np.ndarray],
    ) -> AttackedSet:
        done = AttackedSet(np.empty_like(photos.images), parameters)
        for part in self._parts(len(photos)):
            images = photos.images[part]
            key = key_of(
                **common,
                parameters=parameters,
                images=images,
                targets=photos.data.targets[part],
                seed=self.seed,
            )
            done.images[part] = self.cache.images(key, images, lambda part=part, key=key: make(part, key))  # type: ignore[misc]
            done.keys.append(key)
            self.step()
        return done


def _made_with(*modules: str) -> dict[str, Any]:
    """Code and packages that an attack of these modules comes from."""
    return {
        "code": hash_code((*SHARED, *(HERE / f"{module}.py" for module in modules))),
        "versions": versions_of(*PACKAGES),
    }
