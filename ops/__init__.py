"""What an operator runs: the command line, the client of the asynchronous API, and what looks after a running platform."""
