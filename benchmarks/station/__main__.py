"""The station's records under kills and power cuts, and the station under load.

python -m benchmarks.station                        # everything but the pictures, about five minutes
python -m benchmarks.station kills power --kills 50
python -m benchmarks.station screenshots            # the README's pictures of the pages; needs Chromium
"""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks.station.invariants import FIGURES

PARTS = ("kills", "power", "load", "search")
PICTURES = "screenshots"


def main() -> int:
    """Run the parts that are asked for; 1 where something was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.station", description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (all)")
    parser.add_argument("--kills", type=int, default=1000, metavar="N", help="writers killed (%(default)s)")
    parser.add_argument("--cuts", type=int, default=200, metavar="N", help="power cuts (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="of load (%(default)s)")
    parser.add_argument("--pictures", type=int, default=100_000, metavar="N", help="in the database (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    args = parser.parse_args()
    if set(args.parts) - {*PARTS, PICTURES}:
        parser.error(f"the parts are {', '.join(PARTS)}")
    failed = False
    for part in args.parts or PARTS:
        found: dict[str, object]
        if part == "kills":
            from benchmarks.station import kills

            found = kills.run(args.kills, args.seed)
        elif part == "power":
            from benchmarks.station import power

            found = power.run(args.cuts, args.seed)
            control = power.run(args.cuts // 10, args.seed, syncs=False)
            found["control_without_syncs"] = {name: control[name] for name in ("cuts", *FIGURES)}
        elif part == PICTURES:
            from benchmarks.station import screenshots

            found = screenshots.run()
        elif part == "load":
            from benchmarks.station import load

            found = load.run(args.seconds)
        else:
            from benchmarks.station import search

            found = search.run(args.pictures, args.seed)
        failed = failed or any(found.get(name) for name in FIGURES)
        print(json.dumps({part: found}), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
