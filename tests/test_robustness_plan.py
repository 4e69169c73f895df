"""What a run plans, how it scores, and what the report says of its rows."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("torchattacks")

from benchmarks.robustness import plan, report
from benchmarks.robustness.defences import DEFENCES
from benchmarks.robustness.rows import scores


def test_scores_of_a_known_confusion():
    targets = np.array([0] * 10 + [4] * 20)
    predicted = np.array([0] * 8 + [4] * 2 + [4] * 5 + [0] * 15)
    found = scores(targets, np.eye(7)[predicted], ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"))
    assert found["n"] == 30
    assert found["balanced_accuracy"] == pytest.approx((0.8 + 0.25) / 2)
    assert found["melanoma_recall"] == pytest.approx(0.25)
    low, high = found["melanoma_recall_ci"]
    assert low < 0.25 < high
    assert found["confusion"][4][0] == 15
    assert np.sum(found["confusion"]) == 30


def test_plan_has_every_attacker_and_goal_rows():
    for quick in (True, False):
        jobs = plan.plan(quick)
        assert {job.threat_model for job in jobs} == set(plan.THREAT_MODELS)
        wanted = {("clean", 0.0), ("fgsm", 4.0), ("pgd10", 4.0), ("difgsm", 2.0), ("difgsm", 6.0)}
        assert wanted <= {(job.attack, eps) for job in jobs if job.threat_model == "gray" for eps in job.eps}
        assert 8.0 in {eps for job in jobs if job.threat_model == "transfer" for eps in job.eps}
        assert 2.0 in {eps for job in jobs if job.threat_model == "adaptive" for eps in job.eps}
    names = {job.attack for job in plan.plan(False)}
    assert {"fgsm", "pgd10", "pgd50", "mifgsm", "difgsm", "autoattack", "square", "universal", "sticker"} <= names
    gray = ("fgsm", "pgd10", "pgd50", "mifgsm", "difgsm", "deepfool", "autoattack", "universal")
    ladders = [("gray", name) for name in gray] + [("transfer", "difgsm"), ("black", "square")]
    for threat_model, name in (*ladders, ("adaptive", "pgd50"), ("adaptive", "pgd50smooth")):
        own = [
            job
            for job in plan.plan(False)
            if (job.threat_model, job.attack, job.networks) == (threat_model, name, ("standard",))
        ]
        assert {eps for job in own for eps in job.eps} == {1.0, 2.0, 4.0, 6.0, 8.0}
    for quick in (True, False):
        through = {
            (job.attack, job.networks) for job in plan.plan(quick) if job.threat_model == "adaptive" and 2.0 in job.eps
        }
        wanted = {(attack, (network,)) for attack in ("pgd50", "pgd50smooth") for network in ("standard", "hardened")}
        assert wanted <= through


def made_up_row(threat_model: str, attack: str, eps: float, defence: str, value: float, n: int = 20) -> dict:
    figures = {"balanced_accuracy": value, "melanoma_recall": value}
    intervals = {f"{name}_ci": [value, value] for name in figures}
    row = {"network": "standard", "source_model": "standard", "n": n, "ms": 1.0}
    return row | {"threat_model": threat_model, "attack": attack, "eps": eps, "defence": defence} | figures | intervals


def made_up_report(rows: list[dict]) -> dict:
    names = dict.fromkeys(row["defence"] for row in rows)
    return {
        "notice": "n",
        "command": "c",
        "commit": None,
        "split": "test",
        "networks": {"standard": {"name": "x", "version": "1", "sha256": "0", "runtime": "r"}},
        "hardware": {"cpu": "c", "threads": 1, "device": "cpu"},
        "versions": {},
        "defences": {name: {"label": name, "ms": 1.0, "random": False, "source": "-"} for name in names},
        "attacks": {"gray/pgd10": report.merged([{"eps": 2.0, "steps": 10}, {"eps": 4.0, "steps": 10}])},
        "rows": rows,
    }


def test_report_has_the_hardest_attacker_first_and_the_worst_attack_of_each():
    rows = [
        made_up_row("gray", "clean", 0.0, "none", 0.8),
        made_up_row("gray", "pgd10", 2.0, "none", 0.2),
        made_up_row("gray", "difgsm", 2.0, "none", 0.1),
        made_up_row("adaptive", "pgd50", 2.0, "none", 0.05, 7),
        made_up_row("adaptive", "pgd50", 2.0, "mdda_mild", 0.15, 7),
        made_up_row("adaptive", "pgd50", 2.0, "mdda_mild", 0.1, 14),
    ]
    text = report.markdown(made_up_report(rows))
    assert text.index("## White-box adaptive") < text.index("## Gray-box")
    first = "0.050 (pgd50, n 7, clean -)"
    assert f"| 2 | none | {first} | 0.100 (difgsm, n 20, clean 0.800) |  |  |" in text
    assert "| 2 | mdda_mild | 0.150 (pgd50, n 7, clean -) |  |  |  |" in text
    assert "| gray/pgd10 | eps: 2, 4; steps: 10 |" in text
    assert "## Goals" not in text, "these rows answer none"
    goal = report.markdown(made_up_report([*rows, made_up_row("gray", "difgsm", 6.0, "mdda_balanced", 0.5)]))
    assert goal.index("## Goals") < goal.index("at least 0.40 | 0.500") < goal.index("## By threat model")
    rows = rows[:4] + rows[5:]
    text = report.markdown(made_up_report(rows))
    assert "| pgd50 | 2 | 7 | 0.050 (0.050 to 0.050) |  |" in text
    assert "| pgd50 | 2 | 14 |  | 0.100 (0.100 to 0.100) |" in text
    assert "| 2 | none |  | 0.100 (difgsm, n 20, clean 0.800) |  |  |" in text, "7 and 14 images are not compared"


def test_the_most_harmful_attack_is_one_that_all_defences_met():
    rows = [
        made_up_row("gray", "pgd10", 4.0, "none", 0.3),
        made_up_row("gray", "pgd10", 4.0, "jpeg", 0.5),
        made_up_row("gray", "pgd10", 4.0, "mdda_mild", 0.6),
        made_up_row("gray", "fgsm", 4.0, "none", 0.4),
        made_up_row("gray", "fgsm", 4.0, "jpeg", 0.4),
        made_up_row("gray", "fgsm", 4.0, "mdda_mild", 0.7),
        made_up_row("gray", "pgd50", 4.0, "none", 0.0),  # of the others nobody knows
        made_up_row("gray", "difgsm", 4.0, "none", 0.1),
        made_up_row("gray", "difgsm", 4.0, "jpeg", 0.1, 7),  # other images
        made_up_row("gray", "difgsm", 4.0, "mdda_mild", 0.1) | {"source_model": "hardened"},  # other pictures
    ]
    found = report.most_harmful(rows)
    assert {name: (row["attack"], row["balanced_accuracy"]) for name, row in found.items()} == {
        "none": ("pgd10", 0.3),
        "jpeg": ("fgsm", 0.4),
        "mdda_mild": ("pgd10", 0.6),
    }
    assert report.most_harmful([]) == {}


def test_plan_narrows():
    jobs = [job for job in plan.plan(True, ("fgsm",), (1.0, 2.0), 1) if "hardened" not in (job.networks or ())]
    assert [(job.attack, job.eps, job.per_class) for job in jobs] == [("clean", (0.0,), 1), ("fgsm", (1.0, 2.0), 1)]


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("eps", [None, (2.0, 4.0), (1.0, 2.0, 4.0, 6.0, 8.0)])
@pytest.mark.parametrize("per_class", [None, 3, 30])
def test_no_row_is_made_twice_and_each_has_its_clean_comparator(quick, eps, per_class):
    """Attacked rows by network, attacker, attack, eps and defence; clean ones once for each number of images."""
    for jobs in (plan.plan(quick, None, eps, per_class), plan.fitted(plan.plan(quick, None, eps, per_class), 4)):
        attacked = set()
        clean = set()
        for job in jobs:
            for network in job.networks or (None,):
                for value in job.eps:
                    for defence in job.defences or DEFENCES:
                        if job.attack == "clean":
                            assert (network, job.per_class, defence) not in clean
                            clean.add((network, job.per_class, defence))
                        else:
                            row = network, job.per_class, defence, job.threat_model, job.attack, value
                            assert row not in attacked
                            attacked.add(row)
        assert {row[:3] for row in attacked} <= clean


def test_other_eps_on_the_full_plan_keep_the_most_images():
    jobs = plan.plan(False, ("difgsm", "pgd10"), (2.0, 4.0), threat_model=("gray",))
    standard = [(job.attack, job.eps, job.per_class) for job in jobs if job.networks == ("standard",)]
    assert standard == [
        ("clean", (0.0,), plan.PER_CLASS),
        ("pgd10", (2.0, 4.0), plan.PER_CLASS),
        ("difgsm", (2.0, 4.0), plan.PER_CLASS),
    ]


def test_clean_comparators_of_the_quick_plan_are_few():
    """Beside the clean images of the plan itself, for one network: no more than these once more, with few defences."""
    extra = [job for job in plan.plan(True) if job.attack == "clean" and job.per_class != plan.PER_CLASS]
    assert {job.per_class for job in extra if job.networks == ("standard",)} == {1, 2, 3, 5}
    assert all(len(job.defences or DEFENCES) <= 4 for job in extra)
    assert sum(job.per_class or 0 for job in extra if job.networks == ("standard",)) <= plan.PER_CLASS


def test_the_attacker_who_knows_the_defence_meets_every_defence():
    met = [job for job in plan.FULL if job.threat_model == "adaptive" and "standard" in (job.networks or ())]
    behind = {
        job.attack: set(job.defences or DEFENCES) for job in met if 2.0 in job.eps and len(job.defences or DEFENCES) > 4
    }
    assert behind == {plan.ADAPTIVE: set(DEFENCES), plan.ADAPTIVE_SMOOTH: set(DEFENCES) - {"tvm"}}, "side by side"
