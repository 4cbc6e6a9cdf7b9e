"""Finding pictures that two sets share."""
