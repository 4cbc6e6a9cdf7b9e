"""Where in an image a critic sees what."""
