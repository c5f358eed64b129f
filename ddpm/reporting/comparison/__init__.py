"""The comparison across experiments: which runs may be compared, tables, figures, a page.

It knows nothing of the stages.
"""

__all__ = ["cells", "findings", "markdown", "names", "pages", "plots"]
