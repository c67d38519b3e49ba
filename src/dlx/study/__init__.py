"""What a study is: its variants, axes, claims and metrics. Nothing here trains or reads records."""
