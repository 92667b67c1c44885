"""The same training as a SageMaker job, and its rehearsal on this machine."""
