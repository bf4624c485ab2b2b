"""Who watches a stack: objectives, alerts, where they go, and the dashboard. Pure functions of a topology, and their files."""
