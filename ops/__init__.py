"""What an operator runs: the command line, for stack files, the local platform, queries and their cost."""
