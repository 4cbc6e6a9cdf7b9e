"""Our own small critics, whose weights ship."""
