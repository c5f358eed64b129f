"""Images: where they come from, the packed array with its held-out images, class names, pictures as files.

It knows nothing of noise and networks.
"""

__all__ = ["class_names", "colour", "dataset", "downloads", "modes", "pictures", "pixels", "preprocess", "sources"]
