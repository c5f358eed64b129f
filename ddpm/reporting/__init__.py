"""What is shown of data, models and scores: figures, Markdown, HTML pages, the model card, comparisons of runs.

It knows nothing of training.
"""

__all__ = [
    "comparison",
    "data_plots",
    "explore",
    "figures",
    "model_card",
    "page",
    "plots",
    "report",
    "schedule_plots",
    "score_plots",
]
