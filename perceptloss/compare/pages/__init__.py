"""Pages that stand alone, and the pictures in them."""

from __future__ import annotations

from perceptloss.compare.pages.page import page
from perceptloss.compare.pages.pictures import pictures_of, png, thumbnail, window

__all__ = ["page", "pictures_of", "png", "thumbnail", "window"]
