"""What the service promises to whoever exposes it: one file for each kind of promise."""
