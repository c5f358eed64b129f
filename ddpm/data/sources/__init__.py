"""Where images come from: Flowers-102, a folder, or drawn by code; all with the same few methods.

It knows nothing of image sizes and arrays.
"""

__all__ = ["choice", "drawing", "flowers102", "folder", "kinds", "source", "synthetic"]
