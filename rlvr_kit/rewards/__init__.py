"""The verifier's verdict in three forms: TRL reward functions, the command `score`, an AWS Lambda."""

from rlvr_kit.rewards.reward_functions import CorrectnessReward, FormatReward

__all__ = ["CorrectnessReward", "FormatReward"]
