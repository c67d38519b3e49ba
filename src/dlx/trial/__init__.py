"""One trial from its settings to live objects: resolving, warnings, building."""
