"""Whether the app is well: ways to look at it, and what their findings come to."""
