"""One trial in the process at hand: its task, its voxels, and what the process keeps between trials."""
