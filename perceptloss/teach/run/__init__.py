"""Parts of the recipe that teaches critics; see `critic.py`."""
