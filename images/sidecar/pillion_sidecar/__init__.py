"""The sidecar: stands beside one app, registers it, watches it, finds what it requires, and forwards its log lines (design.md)."""
