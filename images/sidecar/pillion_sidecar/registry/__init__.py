"""This sidecar's place in the registry: taken, kept, given up."""
