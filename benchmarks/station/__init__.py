"""Whether the station survives kills and power cuts, and how it bears load. ``python -m benchmarks.station``."""
