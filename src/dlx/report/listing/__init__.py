"""What `dlx ls` lists: the studies below a folder, each with its trials, verdicts and age."""
