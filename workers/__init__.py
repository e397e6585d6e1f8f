"""The regsearch workers: data, models and the stack that trains many trials as one. Nothing in here imports FastAPI."""
