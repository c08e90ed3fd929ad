"""The other registries, each started for one measurement on loopback with its durable settings. docs/benchmarks.md says how to get them."""
