"""Body sites, as the body map shows them: a code that records keep, words, and a shape on the map.

The map shows the front as one sees a patient (the patient's right is on the left) and the back as one sees it.
"""

from __future__ import annotations

from dataclasses import dataclass

FACES = ("front", "back")
WIDTH, HEIGHT = 200, 420  # units of one body in the SVG


@dataclass(frozen=True)
class Site:
    """One part of the body."""

    code: str
    label: str
    face: str
    """``front`` or ``back``."""
    side: str
    """``left`` or ``right`` of the patient, or ``middle``."""
    box: tuple[int, int, int, int]
    """Left, top, width and height on the map; drawn as a rectangle with round corners."""


def _both(name: str, words: str, face: str, box: tuple[int, int, int, int]) -> list[Site]:
    """The site on both sides; ``box`` is the one on the viewer's left."""
    left, top, width, height = box
    mirrored = (WIDTH - left - width, top, width, height)
    viewers = ("right", "left") if face == "front" else ("left", "right")
    return [
        Site(f"{name}-{side}-{face}", f"{words}, {side}", face, side, place)
        for side, place in zip(viewers, (box, mirrored), strict=True)
    ]


def _middle(name: str, words: str, face: str, box: tuple[int, int, int, int]) -> Site:
    return Site(f"{name}-{face}", words, face, "middle", box)


_ALL = [
    _middle("face", "Face", "front", (76, 14, 48, 50)),
    _middle("neck", "Front of the neck", "front", (86, 66, 28, 18)),
    *_both("chest", "Chest", "front", (62, 86, 37, 60)),
    _middle("abdomen", "Abdomen", "front", (64, 148, 72, 54)),
    _middle("groin", "Groin and genitals", "front", (66, 204, 68, 26)),
    *_both("upper-arm", "Upper arm, front", "front", (36, 90, 24, 62)),
    *_both("forearm", "Forearm, front", "front", (28, 154, 24, 56)),
    *_both("hand", "Palm of the hand", "front", (22, 212, 26, 30)),
    *_both("thigh", "Thigh, front", "front", (66, 232, 32, 76)),
    *_both("shin", "Shin", "front", (68, 310, 28, 72)),
    *_both("foot", "Top of the foot", "front", (62, 384, 34, 22)),
    _middle("scalp", "Scalp and back of the head", "back", (76, 14, 48, 50)),
    _middle("nape", "Nape of the neck", "back", (86, 66, 28, 18)),
    *_both("upper-back", "Upper back", "back", (62, 86, 37, 60)),
    *_both("lower-back", "Lower back", "back", (64, 148, 35, 48)),
    *_both("buttock", "Buttock", "back", (66, 198, 33, 32)),
    *_both("upper-arm", "Upper arm, back", "back", (36, 90, 24, 62)),
    *_both("forearm", "Forearm, back", "back", (28, 154, 24, 56)),
    *_both("hand", "Back of the hand", "back", (22, 212, 26, 30)),
    *_both("thigh", "Thigh, back", "back", (66, 232, 32, 76)),
    *_both("calf", "Calf", "back", (68, 310, 28, 72)),
    *_both("sole", "Sole of the foot", "back", (62, 384, 34, 22)),
]

SITES: dict[str, Site] = {site.code: site for site in _ALL}
