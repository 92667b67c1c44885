"""What happens to a model after training: export it with a card, try it, serve it here, put it on the Hub."""
