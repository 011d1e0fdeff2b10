"""The version of the package, in one place that everything may read."""

__version__ = "0.1.0"
