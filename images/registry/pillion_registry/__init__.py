"""The registry: who is there, who is healthy, and who must be told (design.md)."""
