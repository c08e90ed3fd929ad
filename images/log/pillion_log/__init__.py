"""The log service: takes entries in, keeps them, and shows them (design.md)."""
