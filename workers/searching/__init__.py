"""One lease on one study's search: ask, pack, train, judge, tell; `session` is the loop, the others are its parts."""
