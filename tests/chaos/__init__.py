"""The chaos programme: inputs of every kind, damaged and forged, opened by the tool. See ``__main__``."""
