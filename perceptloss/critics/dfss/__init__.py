"""DFSS: naturalness of screen content."""
