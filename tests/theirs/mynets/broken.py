"""A file that can't be imported."""

raise ImportError("a package that nobody has")
