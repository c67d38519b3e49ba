"""Worker processes on this machine: their start, their devices, their tasks."""
