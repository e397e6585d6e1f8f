"""The regsearch service: specs, search, store, HTTP API and command line. No module in it imports torch."""
