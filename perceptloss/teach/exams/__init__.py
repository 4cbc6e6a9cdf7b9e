"""How a critic is examined."""
