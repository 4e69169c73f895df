"""What a run does: which attacks, at which strength, on how many images; small enough for a laptop with ``--quick``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

THREAT_MODELS = ("adaptive", "gray", "transfer", "black")
"""Who the attacker is, strongest first: knows network and defence; the network; neither, but trains another network;
neither, but sees the pipeline's scores."""

PER_CLASS = 20  # images a class of --quick, fewer where the split has fewer
TRAINING_PER_CLASS, QUICK_TRAINING_PER_CLASS = 40, 10  # images of val, to train what is the same for all images


@dataclass(frozen=True)
class Job:
    """One attack of one kind of attacker.

    Attributes
    ----------
    threat_model : str
        One of :data:`THREAT_MODELS`.
    attack : str
    eps : tuple of float
        Grey levels; one set of attacked images each.
    per_class : int, optional
        Images a class; None is all.
    defences : tuple of str, optional
        Only these; None is all. Each has its own attacked images where the attacker goes through the defence.
    networks : tuple of str, optional
        Attacked networks; None is all.
    """

    threat_model: str
    attack: str
    eps: tuple[float, ...]
    per_class: int | None = None
    defences: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None


CLEAN = "clean"
STICKER = "sticker"
UNIVERSAL = "universal"
SQUARE = "square"
ADAPTIVE, ADAPTIVE_SMOOTH = "pgd50", "pgd50smooth"  # the identity, and a blur, stand in for the defence
THROUGH = (ADAPTIVE, ADAPTIVE_SMOOTH)
ADAPTIVE_EPS, ADAPTIVE_PER_CLASS = 2.0, 3  # of the full run's adaptive rows with the most images, and of the alarm's

_STANDARD, _HARDENED = ("standard",), ("hardened",)
_BOTH = ("none", "mdda_balanced")
_OURS = (*_BOTH, "mdda_mild", "mdda_strong")
_OTHERS = ("bdr", "sr", "nrp", "jpeg", "median", "gaussian", "nlm", "rof")  # TVM's 20 slow draws would take the longest

_GOALS = (
    Job("gray", CLEAN, (0.0,), PER_CLASS, networks=_STANDARD),
    Job("gray", "fgsm", (4.0,), PER_CLASS, networks=_STANDARD),
    Job("gray", "pgd10", (4.0,), PER_CLASS, networks=_STANDARD),
    Job("gray", "difgsm", (2.0, 6.0), PER_CLASS, networks=_STANDARD),
    Job("transfer", "difgsm", (8.0,), 5, _OURS, _STANDARD),
    Job("gray", CLEAN, (0.0,), PER_CLASS, _OURS, _HARDENED),
)
"""All defences side by side; the quick run and the full one share them."""

_ITERATED = (
    Job("gray", "mifgsm", (4.0,), 3, _OURS, _STANDARD),
    Job("gray", "pgd50", (4.0,), 2, _OURS, _STANDARD),
)

QUICK = (
    *_GOALS,
    *(Job("adaptive", name, (2.0,), 1, _BOTH, _STANDARD) for name in THROUGH),
    *_ITERATED,
    Job("gray", "deepfool", (4.0,), 2, _OURS, _STANDARD),
    Job("gray", "autoattack", (4.0,), 2, _OURS, _STANDARD),
    Job("gray", UNIVERSAL, (8.0,), 5, _OURS, _STANDARD),
    Job("gray", STICKER, (0.0,), 5, _OURS, _STANDARD),
    Job("black", SQUARE, (8.0,), 3, _BOTH, _STANDARD),
    Job("gray", "pgd10", (4.0,), 5, _OURS, _HARDENED),
    Job("gray", "difgsm", (2.0,), 5, _OURS, _HARDENED),
    *(Job("adaptive", name, (2.0,), 1, _BOTH, _HARDENED) for name in THROUGH),
)
"""For two cores and less than twenty minutes; a row's ``n`` says on how many images it stands."""

FULL = (
    *_GOALS,
    *(Job("adaptive", name, (ADAPTIVE_EPS,), ADAPTIVE_PER_CLASS, _BOTH, _STANDARD) for name in THROUGH),
    *_ITERATED,
    Job("gray", "mifgsm", (1.0, 2.0, 6.0, 8.0), 3, _OURS, _STANDARD),
    Job("gray", "pgd50", (1.0, 2.0, 6.0, 8.0), 2, _OURS, _STANDARD),
    Job("gray", "difgsm", (1.0, 4.0, 8.0), 5, networks=_STANDARD),
    *(Job("gray", name, (1.0, 2.0, 6.0, 8.0), 5, networks=_STANDARD) for name in ("fgsm", "pgd10")),
    *(Job("gray", name, (4.0,), 2, networks=_STANDARD) for name in ("deepfool", "autoattack")),
    *(Job("gray", name, (1.0, 2.0, 6.0, 8.0), 2, _OURS, _STANDARD) for name in ("deepfool", "autoattack")),
    Job("gray", UNIVERSAL, (8.0,), 5, networks=_STANDARD),
    Job("gray", UNIVERSAL, (1.0, 2.0, 4.0, 6.0), 5, _OURS, _STANDARD),
    Job("gray", STICKER, (0.0,), 5, networks=_STANDARD),
    Job("transfer", "difgsm", (8.0,), PER_CLASS, _OURS, _STANDARD),
    Job("transfer", "difgsm", (1.0, 2.0, 4.0, 6.0), 5, _OURS, _STANDARD),
    Job("transfer", "mifgsm", (8.0,), 5, _OURS, _STANDARD),
    *(Job("gray", name, (2.0, 4.0, 8.0), 5, _OURS, _HARDENED) for name in ("pgd10", "difgsm")),
    Job("transfer", "difgsm", (8.0,), 5, _OURS, _HARDENED),
    *(Job("adaptive", name, (ADAPTIVE_EPS,), ADAPTIVE_PER_CLASS, _BOTH, _HARDENED) for name in THROUGH),
    *(
        Job("adaptive", name, (1.0, 4.0, 6.0, 8.0), 1, _BOTH, networks)
        for name in THROUGH
        for networks in (_HARDENED, _STANDARD)
    ),
    Job("adaptive", ADAPTIVE, (2.0,), 1, networks=_STANDARD),
    Job("adaptive", ADAPTIVE_SMOOTH, (2.0,), 1, (*_OURS, *_OTHERS), _STANDARD),
    Job("black", SQUARE, (1.0, 2.0, 4.0, 6.0, 8.0), 1, _BOTH, _STANDARD),
)
"""For some hours of two cores; with ``--images`` a faster machine does more."""

ATTACK_NAMES = tuple(dict.fromkeys(job.attack for job in FULL))


def plan(
    quick: bool,
    attacks: Sequence[str] | None = None,
    eps: Sequence[float] | None = None,
    per_class: int | None = None,
    threat_model: Sequence[str] | None = None,
) -> list[Job]:
    """The jobs of a run, none twice.

    Clean images are always judged, for everything is compared with them: all of the plan's, and once more as few as an
    attacked job has, behind the same defences, for a figure of 7 images is fairly compared with that of the same 7.

    Parameters
    ----------
    quick : bool
    attacks, threat_model : sequence of str, optional
        Only these.
    eps : sequence of float, optional
        Instead of the plan's, for attacks that have an eps.
    per_class : int, optional
        Images a class in place of the plan's; of the quick plan at most so many.
    """
    jobs = []
    for job in QUICK if quick else FULL:
        if job.attack != CLEAN:
            if (attacks is not None and job.attack not in attacks) or (
                threat_model is not None and job.threat_model not in threat_model
            ):
                continue
            if eps is not None and job.attack != STICKER:
                job = replace(job, eps=tuple(eps))
        if per_class is not None:
            job = replace(job, per_class=min(per_class, job.per_class or per_class) if quick else per_class)
        jobs.append(job)
    return _whole(jobs)


def fitted(jobs: Sequence[Job], most: int) -> list[Job]:
    """The jobs for a data set with at most ``most`` images of a class: none has the images of another again."""
    return _whole([replace(job, per_class=min(job.per_class or most, most)) for job in jobs])


def _whole(jobs: Sequence[Job]) -> list[Job]:
    attacked = _merged([job for job in jobs if job.attack != CLEAN])
    return [*_comparators([job for job in jobs if job.attack == CLEAN], attacked), *attacked]


def _size(per_class: int | None) -> float:
    return inf if per_class is None else per_class


def _merged(jobs: Sequence[Job]) -> list[Job]:
    """Each attack of an attacker on a network behind some defences once for each eps, on the most images.

    What then has the same images becomes one job, so that no defence is judged on them twice.
    """
    most: dict[tuple[Job, float], int | None] = {}
    for job in jobs:
        for value in job.eps:
            key = replace(job, eps=(), per_class=None), value
            most[key] = max(most.get(key, 0), job.per_class, key=_size)
    behind: dict[tuple[Job, float], tuple[str, ...] | None] = {}
    for (job, value), per_class in most.items():
        same = replace(job, defences=None, per_class=per_class), value
        behind[same] = _either(behind.get(same, ()), job.defences)
    merged: dict[Job, list[float]] = {}
    for (job, value), defences in behind.items():
        merged.setdefault(replace(job, defences=defences), []).append(value)
    return [replace(job, eps=tuple(values)) for job, values in merged.items()]


def _either(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if one is None or other is None else tuple(dict.fromkeys(one + other))


def _comparators(clean: Sequence[Job], attacked: Sequence[Job]) -> list[Job]:
    """One clean job for each number of images that a network is judged on, the most images last.

    It has the defences of all jobs with that number.
    """
    names: dict[tuple[tuple[str, ...] | None, int | None], tuple[str, ...] | None] = {}
    for job in (*clean, *attacked):
        key = job.networks, job.per_class
        names[key] = _either(names.get(key, ()), job.defences)
    order = list(dict.fromkeys(job.networks for job in (*clean, *attacked)))
    return [
        Job("gray", CLEAN, (0.0,), per_class, defences, networks)
        for (networks, per_class), defences in sorted(
            names.items(), key=lambda item: (order.index(item[0][0]), _size(item[0][1]))
        )
    ]
