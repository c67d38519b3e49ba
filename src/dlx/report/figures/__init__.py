"""A study's figures, as SVG and PNG."""
