"""One step of GRPO, fast and exact: sampling completions, and their log-probabilities for the loss."""
