"""How well the defence works, against whom, and at what cost: real attacks on real photographs, side by side.

``python -m benchmarks.robustness --quick --json out.json``; every set of attacked images is cached, so that an
interrupted run goes on where it stopped.
"""
