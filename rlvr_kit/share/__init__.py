"""After training: export a model with its card, try it, serve it on this machine, put it on the Hub."""
