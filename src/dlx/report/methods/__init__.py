"""The Methods paragraphs of a study, made from its records."""
