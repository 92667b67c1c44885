"""The checks of the exercises, a module for each notebook: what a teacher would say about an answer."""
