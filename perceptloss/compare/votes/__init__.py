"""People's votes: a blind page that asks for them, and what they say once they are back."""
