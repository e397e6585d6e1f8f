"""The regsearch service: specs, search, store, HTTP API and command line. Nothing in here imports torch."""
