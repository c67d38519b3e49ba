"""What the commands print: consoles, the head and progress of a run, its outcome, tables; and the report's files."""
