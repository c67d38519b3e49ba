"""Scores of a predicted mask: overlap (Dice) and surface distances (HD95, surface Dice)."""
