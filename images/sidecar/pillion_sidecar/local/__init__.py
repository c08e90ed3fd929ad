"""What the app may ask of its sidecar, and the registry of both."""
