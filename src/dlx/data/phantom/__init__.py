"""The phantom: made-up brains with their masks."""
