"""What any process of ours needs first: its topology, its secrets, Redis, the metadata database, counters."""
