"""What this board is: its parts, its sensors, and child processes that may die on it."""
