"""Puts a sidecar beside an app that is there already: a service of a compose file, or a running container."""
