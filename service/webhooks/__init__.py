"""Webhooks: requests that tell other services what has happened, signed, and to addresses that may be reached only."""
