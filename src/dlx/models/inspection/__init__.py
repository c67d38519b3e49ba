"""What one forward pass of a network shows: its parameters, which are used twice, and its operations."""
