"""What the image carries: Superset's configuration, its start, and what runs inside its processes."""
