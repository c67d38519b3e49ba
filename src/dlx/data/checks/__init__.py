"""Checks of data and split that only warn: likely mistakes, copies of images, persons recognised in case names."""
