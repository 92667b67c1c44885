"""What is asked and how an answer is judged.

One verifier serves training, evaluation, the command `score` and the AWS Lambda.
"""
