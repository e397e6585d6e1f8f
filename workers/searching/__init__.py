"""One lease on one study's search: ask, pack, train, judge, tell. `search` is the entry point, `session` the loop."""
