"""What every Pillion program shares: models, configuration, errors, logs, tasks, life cycle and the HTTP core. It imports no image."""

__version__ = "0.1.0"
