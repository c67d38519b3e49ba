"""The machine and its operating system: files, memory, CPU cores, character encodings, and dlx's errors."""
