"""The runtime under faults: a package, so that its web process and workers end with its last test."""
