"""Splits of the cases into training and validation, by person."""
