"""Speed beside peers and ceilings: run.py (a step), time_to_dice.py (a whole run),
dice_over_time.py (as far as an hour takes it), scaling.py (cost as work grows)."""
