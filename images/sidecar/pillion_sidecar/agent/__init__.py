"""The agent: one process per container engine that stands in for sidecars where one beside each container is not wanted."""
