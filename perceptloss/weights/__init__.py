"""Weight files: found, fetched, checked, converted."""
