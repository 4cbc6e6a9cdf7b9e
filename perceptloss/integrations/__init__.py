"""Plugs into training frameworks; a framework is imported here and nowhere else in the package."""
