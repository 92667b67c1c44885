"""The notebooks as a series: execute all of them, and make a report of what they showed."""
