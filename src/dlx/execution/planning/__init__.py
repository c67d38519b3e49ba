"""The plan of a study, made before any training: its trials, how many run at once, and what they will cost."""
