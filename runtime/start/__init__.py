"""What a container runs."""
