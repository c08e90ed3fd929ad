"""Finding entries: what is asked (`question`), which lines answer it (`matching`, `patterns`), page by page (`paging`). Pure."""
