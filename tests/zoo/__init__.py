"""Small files of exactly the public layouts, built in code: one module per area, one builder per layout."""
