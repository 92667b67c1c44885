"""A recipe becomes a trained run folder: the plan, the training, its guards."""
