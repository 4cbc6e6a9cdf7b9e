"""JSPL: a joint structure and perception loss."""
