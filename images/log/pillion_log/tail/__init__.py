"""`GET /logs/tail`: entries as they come, to many at once: shared rings (`rings`), who fills them (`tails`), who reads them (`streams`)."""
