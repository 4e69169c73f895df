"""The networks that come with the program, their model card, and the drawn picture that stands for a lesion."""

from __future__ import annotations

from pathlib import Path

DEMO_IMAGE = Path(__file__).parent / "demo-synthetic.jpg"
