"""``python -m benchmarks.robustness figures``: the figures of a report, as small PNG files.

Colours are those of Okabe and Ito, which colour-blind readers tell apart, with wine in place of their yellow, which is
faint on white; every curve has a marker of its own too.
Figures of patients' photographs are only written outside the repository (or where git ignores them); the README's strip
is made of the drawn demo picture.

References
----------
M. Okabe, K. Ito, "Color universal design", 2008.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.robustness import figure_data
from benchmarks.robustness.errors import RobustnessError
from benchmarks.robustness.options import DATA, names
from edge_mdda import NOTICE
from edge_mdda.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
MAX_BYTES = 60_000  # of a figure that may stand in the repository
DPI = 100
WIDTH = 8.8  # inches: the width of a README
PALETTE_SIZES = (256, 128, 64, 48, 32, 24, 16)
"""Colours of a PNG: the most at which the file stays small enough."""
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#999999", "#882255", "#0072B2")
MARKERS = "xsvD^*P<o"
CONFUSION_ATTACK, CONFUSION_EPS = "difgsm", (2.0, 6.0)
CURVES = ("none", "bdr", "sr", "nrp", "jpeg", "median", "nlm", "mdda_strong", "mdda_balanced")
CONFUSION_DEFENCES = ("bdr", "sr", "nrp", "mdda_balanced")
TITLES = {
    "gray": "gray-box: knows the network",
    "transfer": "transfer: trains another network",
    "adaptive": "white-box adaptive: knows network and defence",
}
SPREAD = 0.02  # of the axis, between points of one eps
EXAMPLES = """\
examples:
  python -m benchmarks.robustness figures out.json --out report/
  python -m benchmarks.robustness figures out.json tune.json alarm.json --out report/ --photographs
  python -m benchmarks.robustness figures --out benchmarks/figures --demo
"""


def confusion_figure(found: Sequence[figure_data.Confusion], classes: Sequence[str], title: str) -> Figure:
    """Up to four matrices in two columns: colour is the share of the true class, the number is the count."""
    fig = _figure(WIDTH, 0.5 + 3.9 * -(-len(found) // 2))
    for n, one in enumerate(found, start=1):
        axes = fig.add_subplot(-(-len(found) // 2), 2, n)
        axes.imshow(one.shares, cmap="cividis", vmin=0, vmax=1)
        for true, row in enumerate(one.counts):
            for answer, count in enumerate(row):
                dark = one.shares[true, answer] < 0.55
                axes.text(
                    answer, true, str(count), ha="center", va="center", size=7, color="white" if dark else "black"
                )
        axes.set_xticks(range(len(classes)), classes, size=7)
        axes.set_yticks(range(len(classes)), classes, size=7)
        axes.set_xlabel("answer", size=8)
        axes.set_ylabel("truth", size=8)
        recalls = one.shares.diagonal()[one.counts.sum(1) > 0]
        axes.set_title(f"{one.label}: balanced accuracy {recalls.mean():.2f}", size=9)
    fig.suptitle(title, size=10)
    return fig


def curve_figure(panels: Sequence[figure_data.Panel], labels: Mapping[str, str], title: str) -> Figure:
    """A panel for each kind of attacker; the bands are 95 % intervals (:mod:`benchmarks.robustness.rows`)."""
    fig = _figure(WIDTH, 4.0)
    shown = list(dict.fromkeys(curve.defence for panel in panels for curve in panel.curves))
    for n, panel in enumerate(panels, start=1):
        axes = fig.add_subplot(1, len(panels), n)
        strengths = sorted({eps for curve in panel.curves for eps in curve.eps})
        step = SPREAD * strengths[-1]
        for curve in panel.curves:
            place = shown.index(curve.defence)
            aside = step * (place - (len(shown) - 1) / 2) if len(strengths) == 1 else 0.0
            _draw(axes, curve, place, labels.get(curve.defence, curve.defence), aside)
        if len(strengths) == 1:
            axes.set_xticks(strengths, [f"{strengths[0]:g}"])
            axes.set_xlim(strengths[0] - len(shown) * step, strengths[0] + len(shown) * step)
        else:
            axes.set_xlim(-step, strengths[-1] + step)
        source_model = f" on {panel.source_model}" if panel.source_model else ""
        axes.set_title(
            f"{TITLES.get(panel.threat_model, panel.threat_model)}\n{panel.attack}{source_model}, {panel.n} images",
            size=8,
        )
        axes.set_xlabel("eps, grey levels of 255", size=8)
        _tidy(axes)
        if n == 1:
            axes.set_ylabel("balanced accuracy", size=8)
    handles: dict[str, Any] = {}
    for axes in fig.axes:
        handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    fig.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=5, fontsize=7, frameon=False)
    fig.suptitle(title, size=9)
    return fig


def reliability_figure(sets: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Accuracy against confidence; the area of a point is its share of the answers."""
    fig = _figure(4.4, 4.2)
    axes = fig.add_subplot()
    axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", linewidth=1)
    for n, (name, bins) in enumerate(sets.items()):
        total = sum(b["count"] for b in bins)
        x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        colour, marker = COLOURS[(5 + 3 * n) % len(COLOURS)], MARKERS[(5 + 3 * n) % len(MARKERS)]
        label = f"{name}: calibration error {figure_data.calibration_error(bins):.3f}"
        axes.plot(x, y, color=colour, linewidth=1, label=label, marker=marker, markersize=3)
        axes.scatter(x, y, [600 * b["count"] / total for b in bins], color=colour, alpha=0.35, linewidths=0)
    axes.set_xlabel("confidence of the top class", size=8)
    axes.set_ylabel("accuracy", size=8)
    _tidy(axes)
    axes.set_xlim(0, 1)
    axes.legend(fontsize=7, frameon=False)
    return fig


def draws_figure(curves: Sequence[figure_data.Curve]) -> Figure:
    """What it brings to average several purified views."""
    fig = _figure(4.8, 3.6)
    axes = fig.add_subplot()
    for n, curve in enumerate(curves):
        _draw(axes, curve, n, curve.defence or "balanced accuracy")
    ticks = sorted({k for curve in curves for k in curve.eps})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{k:g}" for k in ticks])
    axes.set_xlabel("draws K", size=8)
    axes.set_ylabel("balanced accuracy", size=8)
    _tidy(axes)
    axes.legend(fontsize=7, frameon=False)
    return fig


def pareto_figure(points: Sequence[Mapping[str, Any]]) -> Figure:
    """All settings of a search, its front (as the search found it), and the presets by name; the colour is the time."""
    fig = _figure(5.6, 4.2)
    axes = fig.add_subplot()
    front = [p["front"] for p in points] if all("front" in p for p in points) else figure_data.pareto_front(points)
    clean, attacked = ([float(p[key]) for p in points] for key in ("clean", "attacked"))
    cloud = axes.scatter(clean, attacked, c=[float(p["ms"]) for p in points], cmap="cividis", s=26, zorder=2)
    ring = [n for n, best in enumerate(front) if best]
    axes.scatter(
        [clean[n] for n in ring],
        [attacked[n] for n in ring],
        s=90,
        facecolors="none",
        edgecolors=COLOURS[5],
        label="Pareto front (clean, attacked, ms)",
    )
    for n, point in enumerate(points):
        if point.get("name"):
            axes.annotate(str(point["name"]), (clean[n], attacked[n]), (6, 6), textcoords="offset points", size=8)
    scale = fig.colorbar(cloud)
    scale.set_label("ms an image", size=8)
    scale.ax.tick_params(labelsize=7)
    axes.set_xlabel("balanced accuracy, clean", size=8)
    axes.set_ylabel("balanced accuracy, attacked", size=8)
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, frameon=False)
    return fig


def png_bytes(pixels: np.ndarray, max_bytes: int | None = MAX_BYTES) -> bytes:
    """A PNG with as many colours as fit into ``max_bytes``; in full colour where there is no limit.

    Raises
    ------
    RobustnessError
        Even 16 colours do not fit.
    """
    from PIL import Image

    image = Image.fromarray(pixels)
    for colours in PALETTE_SIZES if max_bytes else (0,):
        out = io.BytesIO()
        # No dithering: it would look like a perturbation.
        chosen = image.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE) if colours else image
        chosen.save(out, "PNG", optimize=True)
        if not max_bytes or out.tell() < max_bytes:
            return out.getvalue()
    raise RobustnessError(
        f"a figure of {pixels.shape[1]} x {pixels.shape[0]} pixels does not fit into {max_bytes} bytes"
    )


def render(fig: Figure) -> np.ndarray:
    """A figure's pixels ``(h, w, 3)`` uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def draw_all(content: Mapping[str, Any], defences: Sequence[str] = CURVES) -> dict[str, Figure]:
    """Every figure that the content has data for, by file name."""
    figures: dict[str, Figure] = {}
    labels = {name: figure_data.label_of(content, name) for name in defences}
    for network in figure_data.networks(content):
        for eps in CONFUSION_EPS:
            found = figure_data.confusions(content, network, CONFUSION_ATTACK, eps, CONFUSION_DEFENCES)
            if found:
                classes = content.get("classes") or [str(n) for n in range(len(found[0].counts))]
                title = f"Gray-box DI-FGSM at {eps:g}/255, network {network}"
                figures[f"confusion-{network}-{CONFUSION_ATTACK}-{eps:g}.png"] = confusion_figure(found, classes, title)
        for attack in figure_data.attacks_with_curves(content, network):
            panels = figure_data.panels(content, network, attack, defences)
            if panels:
                title = f"Network {network}. Bands: 95 % intervals (Price, Bonett). {NOTICE}"
                figures[f"curves-{network}-{attack}.png"] = curve_figure(panels, labels, title)
    if content.get("reliability"):
        figures["reliability.png"] = reliability_figure(figure_data.reliability(content))
    if content.get("draws"):
        figures["draws.png"] = draws_figure(figure_data.draw_curves(content))
    if content.get("pareto"):
        figures["pareto.png"] = pareto_figure(content["pareto"])
    return figures


def may_hold_photographs(folder: Path) -> bool:
    """Whether a folder lies outside the repository, or git ignores it: patients' photographs never enter it."""
    folder = folder.resolve()
    if folder != ROOT and ROOT not in folder.parents:
        return True
    command = ["git", "check-ignore", "--quiet", str(folder / "photographs.png")]
    try:
        return subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RobustnessError('matplotlib is not installed; run: pip install -e ".[robustness]"') from error

    return Figure((width, height), DPI, layout="constrained")


def _draw(axes: Any, curve: figure_data.Curve, n: int, label: str, aside: float = 0.0) -> None:
    """A curve with its band; a single point with its interval, moved ``aside`` so that others do not cover it."""
    colour, marker = COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)]
    if len(curve.eps) == 1:
        axes.plot([curve.eps[0] + aside] * 2, [curve.low[0], curve.high[0]], color=colour, linewidth=0.8)
        axes.plot(
            curve.eps[0] + aside, curve.value[0], color=colour, marker=marker, markersize=4, linewidth=1.3, label=label
        )
        return
    axes.plot(curve.eps, curve.value, color=colour, marker=marker, markersize=4, linewidth=1.3, label=label)
    axes.fill_between(curve.eps, curve.low, curve.high, color=colour, alpha=0.12, linewidth=0)


def _tidy(axes: Any) -> None:
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=7)


def _execute(args: argparse.Namespace) -> int:
    if not args.json and not args.demo:
        raise RobustnessError("nothing to draw: name the JSON of a run, or give --demo")
    content = figure_data.read(args.json)
    pictures: dict[str, Callable[[], bytes]] = {
        name: lambda fig=figure: png_bytes(render(fig))  # type: ignore[misc]
        for name, figure in draw_all(content, args.defences).items()
    }
    if args.photographs:
        if not may_hold_photographs(args.out):
            raise RobustnessError(
                f"{args.out}: inside the repository, where patients' photographs must not lie; choose another --out"
            )
        from benchmarks.robustness.strips import photographs

        pictures["photographs.png"] = lambda: png_bytes(photographs(content, args.data, args.cache), None)
    if args.demo:
        from benchmarks.robustness.strips import demo

        pictures["strip.png"] = lambda: png_bytes(demo())
    if not pictures:
        raise RobustnessError("the JSON holds no rows of an attack that is drawn; see --help")
    args.out.mkdir(parents=True, exist_ok=True)
    for name, make in pictures.items():
        replace_file(str(args.out / name), make())
        print(args.out / name, flush=True)
    print(NOTICE, file=sys.stderr)
    return 0


def _defences(text: str) -> tuple[str, ...]:
    from benchmarks.robustness.defences import DEFENCES

    chosen = names(tuple(DEFENCES))(text)
    if len(chosen) > len(COLOURS):
        raise argparse.ArgumentTypeError(f"at most {len(COLOURS)} curves can be told apart, got {len(chosen)}")
    return chosen


def add_command(subparsers: Any) -> None:
    """Register ``figures``."""
    parser = subparsers.add_parser(
        "figures",
        help="draw the figures of a report",
        description=f"{__doc__.split(chr(10))[0]}\n\nReads what --json of run, tune or alarm has written. {NOTICE}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("json", nargs="*", type=Path, metavar="FILE.json", help="of one or several runs")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the PNG files go")
    parser.add_argument("--defences", type=_defences, default=CURVES, metavar="NAMES", help="of the curves")
    parser.add_argument("--photographs", action="store_true", help="also a strip of photographs, from the run's cache")
    parser.add_argument("--demo", action="store_true", help="also a strip of the drawn demo picture (needs torch)")
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="the data set (%(default)s)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="of the run (XDG cache folder)")
    parser.set_defaults(execute=_execute)
