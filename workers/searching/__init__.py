"""One lease on one study's search, from `search` on: ask, pack, train, judge, tell. `session` is the loop."""
