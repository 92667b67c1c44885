"""The notebooks as a whole: executing them all, and the report of what they showed."""
