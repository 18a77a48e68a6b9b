"""Job sources: recorded traces read from files, and generators with a seed."""
