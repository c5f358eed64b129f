"""What is shown of data, trainings and scores: figures, Markdown, HTML pages, the model card, comparisons of runs.

It knows nothing of how a network is trained.
"""

__all__ = [
    "comparison",
    "data_plots",
    "explore",
    "figures",
    "model_card",
    "page",
    "plots",
    "reference_curves",
    "report",
    "schedule_plots",
    "score_plots",
    "training_curves",
]
