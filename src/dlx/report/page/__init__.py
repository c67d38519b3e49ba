"""A study's markdown page."""
