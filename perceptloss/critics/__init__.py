"""One file per system; `perceptloss.registry` holds the table."""
