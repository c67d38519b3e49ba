"""What `dlx show` adds to a study's tables: the head of a run, how far each trial is, and a single trial."""
