"""BIQA for 4K images."""
