"""``python -m benchmarks.robustness run``: every attack against every defence, as rows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.robustness import options
from benchmarks.robustness.errors import RobustnessError


@dataclass(frozen=True)
class Options:
    """What decides the results of a run, and where they go."""

    data: Path
    models: tuple[str, ...]
    quick: bool
    attacks: tuple[str, ...] | None
    eps: tuple[float, ...] | None
    threat_model: tuple[str, ...] | None
    defences: tuple[str, ...] | None
    images: int | None
    seed: int
    threads: int
    device: str
    cache: Path


class Run:
    """One run; see :meth:`rows`."""

    def __init__(self, chosen: Options) -> None:
        import numpy as np
        import torch

        from benchmarks.robustness import defences, images, networks, plan
        from benchmarks.robustness.attacks import library
        from benchmarks.robustness.cache import Cache
        from benchmarks.robustness.sets import Maker
        from edge_mdda.console import Progress
        from export.train.fine_tune import keep_freed_memory

        library()
        if chosen.device != "cpu" and not torch.cuda.is_available():
            raise RobustnessError(f"--device {chosen.device}: torch sees no such device here; leave it out")
        keep_freed_memory()
        torch.set_num_threads(chosen.threads)
        self.options = chosen
        self.jobs = plan.plan(chosen.quick, chosen.attacks, chosen.eps, chosen.images, chosen.threat_model)
        self.defences = {
            name: defence
            for name, defence in defences.DEFENCES.items()
            if chosen.defences is None or name in chosen.defences
        }
        per_class = [job.per_class for job in self.jobs]
        most = None if None in per_class else max(n for n in per_class if n is not None)
        self.photos = images.read(chosen.data, "test", most)
        self.jobs = plan.fitted(self.jobs, int(np.bincount(self.photos.data.targets).max()))
        self._training: Any = None
        self.cache = Cache(chosen.cache)
        self.targets = {name: networks.deployed(name, chosen.device) for name in chosen.models}
        self.sources = {
            name: networks.transfer_sources(name, chosen.device) if self._has("transfer") else []
            for name in self.targets
        }
        self.parameters: dict[str, dict[float, dict[str, Any]]] = {}
        self.sets: dict[str, Any] = {}
        self.ms: dict[str, float] = {}
        self.random: dict[str, bool] = {}
        self.measure()
        self.progress = Progress(self._units())
        self.maker = Maker(self.cache, chosen.seed, chosen.quick, step=self.progress.step)

    def _has(self, threat_model: str) -> bool:
        return any(job.threat_model == threat_model for job in self.jobs)

    def jobs_of(self, name: str) -> list[Any]:
        """The jobs of one network."""
        return [job for job in self.jobs if job.networks is None or name in job.networks]

    def defences_of(self, job: Any) -> list[str]:
        """Names of the defences that a job is judged behind."""
        return [name for name in self.defences if job.defences is None or name in job.defences]

    def _units(self) -> int:
        """Steps of the progress bar: batches to attack and images to judge, by the batch."""
        from benchmarks.robustness.sets import BATCH

        total = 0
        for name in self.targets:
            for job in self.jobs_of(name):
                batches = -(-len(self.photos.first(job.per_class)) // BATCH)
                own = job.threat_model in ("adaptive", "black")
                n_defences = len(self.defences_of(job))
                n_sets = n_defences if own else len(self.sources[name]) if job.threat_model == "transfer" else 1
                judged = n_sets if own else n_sets * n_defences
                attacked = 0 if job.attack == "clean" else 1 if job.attack in ("universal", "sticker") else batches
                total += len(job.eps) * (n_sets * attacked + judged)
        return total

    def measure(self) -> None:
        """Milliseconds of each defence, one after the other, before anything else runs.

        One that cannot be opened is left out with a line, unless it was asked for by name.
        """
        from benchmarks.robustness.pipeline import is_random, milliseconds

        for name, defence in list(self.defences.items()):
            try:
                self.ms[name] = round(milliseconds(defence, self.photos.images), 3)
            except RobustnessError as error:
                if self.options.defences is not None:
                    raise
                print(f"robustness: the defence '{name}' is left out: {error}", file=sys.stderr)
                del self.defences[name]
                continue
            self.random[name] = is_random(defence, self.photos.images[0])

    def rows(self) -> Iterable[dict[str, Any]]:
        """Judge everything; yields rows as they are done."""
        for name in self.targets:
            for job in self.jobs_of(name):
                for eps in job.eps:
                    yield from self._job(name, job, eps)
        self.progress.clear()

    def _job(self, name: str, job: Any, eps: float) -> Iterable[dict[str, Any]]:
        from benchmarks.robustness.sets import AttackedSet

        photos, target = self.photos.first(job.per_class), self.targets[name]
        if job.attack == "clean":
            yield from self._judge(name, job, eps, photos, AttackedSet(photos.images, {}), name)
        elif job.threat_model == "transfer":
            for source in self.sources[name]:
                made = self.maker.on_gradient(job.attack, source.network, source.digest, photos, eps)
                yield from self._judge(name, job, eps, photos, made, source.name)
        elif job.threat_model in ("adaptive", "black"):
            for defence in self.defences_of(job):
                with self._pipeline(target, defence) as pipeline:
                    if job.threat_model == "adaptive":
                        made = self.maker.through_defence(
                            job.attack, target.twin, target.digest, pipeline, photos, eps, self.random[defence]
                        )
                    else:
                        made = self.maker.by_scores(pipeline, photos, eps, self.random[defence])
                yield from self._judge(name, job, eps, photos, made, name, [defence])
        elif job.attack in ("universal", "sticker"):
            made = self.maker.for_all(job.attack, target.twin, target.digest, self.training(), photos, eps)
            yield from self._judge(name, job, eps, photos, made, name)
        else:
            made = self.maker.on_gradient(job.attack, target.twin, target.digest, photos, eps)
            yield from self._judge(name, job, eps, photos, made, name)

    def training(self) -> Any:
        """Images of ``val`` for what is trained; never of ``test``."""
        from benchmarks.robustness import images, plan

        if self._training is None:
            per_class = plan.QUICK_TRAINING_PER_CLASS if self.options.quick else plan.TRAINING_PER_CLASS
            self._training = images.read(self.options.data, "val", min(per_class, self.options.images or per_class))
        return self._training

    def _pipeline(self, target: Any, defence: str) -> Any:
        from benchmarks.robustness.pipeline import Pipeline

        return Pipeline(self.defences[defence], target.classifier, self.options.threads)

    def _judge(
        self,
        name: str,
        job: Any,
        eps: float,
        photos: Any,
        made: Any,
        source_model: str,
        defences: Sequence[str] | None = None,
    ) -> Iterable[dict[str, Any]]:
        """Rows of one set of images behind the defences."""
        import numpy as np

        from benchmarks.robustness.cache import key_of
        from benchmarks.robustness.pipeline import describe, seeds_for
        from benchmarks.robustness.rows import scores

        target, seeds = self.targets[name], seeds_for(photos.data.paths, self.options.seed)
        labels = tuple(target.classifier.manifest.labels)
        if job.attack == "sticker":
            eps = float(np.abs(made.images.astype(int) - photos.images).max())
        for defence in defences if defences is not None else self.defences_of(job):
            key = key_of(
                kind="judged",
                network=target.digest,
                runtime=target.classifier.runtime,
                temperature=target.classifier.manifest.temperature,
                defence=describe(self.defences[defence]),
                images=made.images,
                seeds=seeds,
            )

            def judge(defence: str = defence) -> dict[str, np.ndarray]:
                with self._pipeline(target, defence) as pipeline:
                    return {"probabilities": pipeline.predict(made.images, seeds)}

            probabilities = self.cache.arrays(key, judge)["probabilities"]
            self.progress.step()
            identity = f"{name}/{job.threat_model}/{job.attack}/{source_model}/n{len(photos)}/{eps:g}"
            identity += f"/{defence}" if defences else ""
            self.sets[identity] = {
                "files": made.keys,
                "images": [path.stem for path in photos.data.paths],
                "parameters": made.parameters,
            }
            if made.parameters:
                kind = (
                    ""
                    if job.threat_model not in ("adaptive", "black") or self.random[defence]
                    else ", defence without noise"
                )
                self.parameters.setdefault(f"{job.threat_model}/{job.attack}{kind}", {})[eps] = made.parameters
            yield {
                "network": name,
                "attack": job.attack,
                "eps": eps,
                "threat_model": job.threat_model,
                "source_model": source_model,
                "defence": defence,
                **scores(photos.data.targets, probabilities, labels),
                "ms": self.ms[defence],
                "set": identity,
                "judged": key,
            }


def chosen_models(wanted: str) -> tuple[str, ...]:
    """Names of the networks to judge; says which one is left out because its file is not here."""
    from benchmarks.robustness.networks import MODELS, STUDIED, available

    if wanted != "all":
        return (wanted,)
    for name in STUDIED:
        if name not in available():
            print(f"robustness: the network '{name}' is not here ({MODELS[name].name}); left out", file=sys.stderr)
    return tuple(available())


def execute(args: argparse.Namespace) -> int:
    """Run and write; returns the exit status."""
    from benchmarks.robustness import report

    chosen = options.parse(args)
    run = Run(Options(models=chosen_models(args.model), **chosen))
    print(report.HEAD, flush=True)
    rows = []
    for row in run.rows():
        rows.append(row)
        run.progress.clear()
        print(report.line(row), flush=True)
    result = report.result(run, rows, args.command)
    print("\n" + "\n".join(report.parameter_table(result)), flush=True)
    if args.json:
        report.write_json(args.json, result)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        report.write_json(args.out / report.JSON_NAME, result)
        report.write_text(args.out / report.MARKDOWN_NAME, report.markdown(result))
    return 0


def add_command(subparsers: Any) -> None:
    """Register the command."""
    options.add_run(subparsers, execute)
