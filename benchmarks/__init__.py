"""Measurements of speed and memory, as ratios within one process; run from a clone of the repository."""
