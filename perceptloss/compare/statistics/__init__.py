"""Rank measures, curve fits, bootstrap intervals and paired tests."""
