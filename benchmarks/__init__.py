"""Speed beside peers and ceilings: run.py (a step), time_to_dice.py (a whole run), scaling.py (cost as work grows)."""
