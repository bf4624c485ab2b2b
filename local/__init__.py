"""The local platform: a topology as supervised processes on one machine."""
