"""Arms trained and scored alike, so that a difference is the method's: the paper's tables, controls, or one's own."""
