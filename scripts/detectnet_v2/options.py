"""Native options that leave trained weights as they are; no imports, so that a plan can read it."""

SPEED_OPTIONS = ("workers", "threads", "cache_directory", "compile", "deterministic")
"""Where or how fast a program runs."""
EVALUATION_OPTIONS = ("evaluation_precision", "postprocessing", "dbscan_min_samples")
"""What an evaluation does, those during a training too."""
