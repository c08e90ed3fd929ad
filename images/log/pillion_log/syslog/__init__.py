"""Takes syslog in, over TCP and UDP."""
