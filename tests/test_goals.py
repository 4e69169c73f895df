"""The goals of the benchmark are read off the rows: the right rows, the right bound, and no line without rows."""

from __future__ import annotations

from benchmarks.robustness import goals


def row(threat_model: str, attack: str, eps: float, defence: str, value: float, n: int = 121, **more) -> dict:
    return {
        "network": "standard",
        "threat_model": threat_model,
        "attack": attack,
        "source_model": "standard",
        "eps": eps,
        "defence": defence,
        "n": n,
        "balanced_accuracy": value,
        "balanced_accuracy_ci": [value - 0.1, value + 0.1],
    } | more


def lines(*rows: dict) -> list[str]:
    return list(goals.lines({"rows": rows}))


def test_a_run_without_the_rows_has_no_goals():
    assert goals.table({"rows": []}) == []
    assert lines(row("gray", "difgsm", 2.0, "none", 0.9), row("gray", "difgsm", 1.0, "mdda_balanced", 0.9)) == []
    assert lines(row("gray", "difgsm", 2.0, "mdda_balanced", 0.9, network="hardened")) == []


def test_a_gray_box_goal_is_reached_at_its_bound_and_says_the_interval():
    at, below = (row("gray", "difgsm", 2.0, "mdda_balanced", value) for value in (0.6, 0.599))
    name = "| gray difgsm 2, mdda_balanced: at least 0.60 | "
    assert lines(at) == [name + "0.600 (95 %: 0.500 to 0.700) | 121 | reached |"]
    assert lines(below) == [name + "0.599 (95 %: 0.499 to 0.699) | 121 | NOT reached |"]
    assert goals.table({"rows": [at]}) == [*goals.HEAD, *lines(at)]
    (six,) = lines(row("gray", "difgsm", 6.0, "mdda_balanced", 0.4))
    assert "at least 0.40" in six and six.endswith("| reached |")


def test_the_lead_is_over_the_best_competitor_on_the_same_images():
    own = row("gray", "pgd10", 4.0, "mdda_balanced", 0.7)
    others = [
        row("gray", "pgd10", 4.0, "none", 0.9),
        row("gray", "pgd10", 4.0, "mdda_strong", 0.8),
        row("gray", "pgd10", 4.0, "jpeg", 0.6),
        row("gray", "pgd10", 4.0, "nlm", 0.5),
    ]
    strayed = [
        row("gray", "pgd10", 4.0, "rof", 0.69, n=35),
        row("gray", "pgd10", 2.0, "rof", 0.69),
        row("gray", "pgd10", 4.0, "rof", 0.69, network="hardened"),
        row("transfer", "pgd10", 4.0, "rof", 0.69),
    ]
    head = "| gray pgd10 4, above the best other defence: at least +0.10 | "
    assert lines(own, *others, *strayed)[1] == head + "+0.100 (0.700; jpeg 0.600) | 121 | reached |"
    close = row("gray", "pgd10", 4.0, "rof", 0.61)
    assert lines(own, *others, close)[1] == head + "+0.090 (0.700; rof 0.610) | 121 | NOT reached |"
    assert len(lines(own, *others[:2], *strayed)) == 1, "no competitor, no line"


def test_transfer_is_measured_against_the_same_clean_images_from_every_other_architecture():
    def made(source_model: str, value: float, n: int = 35) -> dict:
        return row("transfer", "difgsm", 8.0, "mdda_balanced", value, n, source_model=source_model)

    clean = [row("gray", "clean", 0.0, "mdda_balanced", value, n) for value, n in ((0.70, 35), (0.9, 121))]
    found = lines(made("squeezenet1_1", 0.65), made("efficientnet-lite2", 0.64), made("hardened", 0.1), *clean)
    head = "| transfer difgsm 8, against clean, made on "
    assert found == [
        head + "squeezenet1_1: at least -0.05 | -0.050 (0.650; clean 0.700) | 35 | reached |",
        head + "efficientnet-lite2: at least -0.05 | -0.060 (0.640; clean 0.700) | 35 | NOT reached |",
    ]
    assert lines(made("squeezenet1_1", 0.65), clean[1]) == [], "clean figures of other images are no measure"


def test_the_adaptive_goal_is_the_hardened_networks_on_the_most_images():
    rows = [
        row("adaptive", "pgd50", 2.0, "mdda_balanced", value, n, network=network, source_model=network)
        for value, n, network in ((0.5, 7, "hardened"), (0.29, 14, "hardened"), (0.1, 14, "standard"))
    ]
    (line,) = lines(*rows)
    assert line == (
        "| adaptive pgd50 2, mdda_balanced, hardened: at least 0.30 | 0.290 (95 %: 0.190 to 0.390) | 14 | NOT reached |"
    )
    smooth = row("adaptive", "pgd50smooth", 2.0, "mdda_balanced", 0.31, 14, network="hardened", source_model="hardened")
    assert lines(*rows, smooth)[1].startswith(
        "| adaptive pgd50smooth 2, mdda_balanced, hardened: at least 0.30 | 0.310"
    )
