"""The only place that imports `superset` or replaces anything of it. Each module names what it leans on."""
