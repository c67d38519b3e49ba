"""What a study found, as values made from its records: its variants, verdicts, claims and plans; nothing in words."""
