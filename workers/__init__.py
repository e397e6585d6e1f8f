"""The regsearch workers: data, networks, and the stacks that train many trials at once. Nothing here imports FastAPI."""
