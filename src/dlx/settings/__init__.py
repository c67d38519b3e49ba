"""Settings: their types and defaults, the registry of named parts, how they are parsed, layered and checked."""
