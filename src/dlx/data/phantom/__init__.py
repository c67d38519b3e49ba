"""The phantom: synthetic brain images with their masks."""
