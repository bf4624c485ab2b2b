"""One module a kind of fault; each has `run`, and can be run alone."""
