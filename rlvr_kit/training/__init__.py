"""From a recipe to a trained run folder: the plan, the training, its guards, and studies of several runs."""
