"""Names and their algebra: paths, name trees, dtabs. Pure."""
