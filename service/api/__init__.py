"""The HTTP API. The only package that knows FastAPI; it validates, stores and reads, and trains nothing."""
