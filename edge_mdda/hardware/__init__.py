"""What this board is: its parts, its sensors, and child processes that may die on it."""

DATA_SETTING = "EDGE_MDDA_STATION"
"""Environment variable: the folder of a station's records. Here, since the command line reads it without ctypes."""
