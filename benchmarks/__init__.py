"""Ratios against the unpatched backbone and plain baselines: ``python -m benchmarks``."""
