"""What figures and pages draw, as values: curves, learning rates, differences, and whose pictures of cases."""
