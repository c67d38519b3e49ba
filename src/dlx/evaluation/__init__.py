"""Predicted masks, written by any tool, measured against true masks: pairs of files, their labels, their scores."""
