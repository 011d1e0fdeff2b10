"""Benchmarks: ratios against the unpatched backbone and plain baselines. Run ``python -m benchmarks``."""
