"""The small HTTP/1.1 core that all programs share, on the C parser httptools: a server, a router, and persistent client connections."""
