"""The files beside a study or run: reports, CSV tables, summary.json, and the JSON documents of commands."""
