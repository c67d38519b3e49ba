"""What a study found in words: verdicts, sentences, plans, and the cells of tables as plain text."""
