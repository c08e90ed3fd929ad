"""What this sidecar knows of others, and which of them it names next."""
