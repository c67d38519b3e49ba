"""The Python interface: what the commands do, as functions that return objects. `import dlx` offers them all."""
