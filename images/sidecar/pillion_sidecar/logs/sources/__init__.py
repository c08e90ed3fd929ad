"""Where log lines come from, besides HTTP. Each is loaded only where it is switched on."""
