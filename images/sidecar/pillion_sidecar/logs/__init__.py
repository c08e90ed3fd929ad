"""Log lines on their way: taken, kept on disk, forwarded."""
