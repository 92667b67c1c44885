"""Tasks: what the model is asked, and how its answer is judged.

The same verifier serves training, evaluation, the command `score` and the AWS Lambda.
"""
