"""MANIQA: attention over several dimensions."""
