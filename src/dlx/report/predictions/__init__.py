"""Evaluated predictions: comparisons of sets, and tables, CSV and JSON of their scores."""
