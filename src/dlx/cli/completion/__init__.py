"""Completion of command lines in bash, zsh and fish: commands, options, and the values that they take. No torch."""
