"""Wrong answers to the exercises of notebooks 00 to 05, and words of what their check must say."""

WRONG: list[tuple[str, str, str, str]] = []


def _wrong(notebook: str, name: str, *rows: tuple[str, str]) -> None:
    WRONG.extend((notebook, name, code, words) for code, words in rows)


_wrong(
    "00_start_here",
    "advantages",
    ("result = (rewards - rewards.mean()) / (rewards.std() + 1e-4)", "population standard deviation; TRL divides"),
    ("result = rewards / rewards.std(ddof=1)", "mean is not subtracted"),
    ("result = rewards - rewards.mean()", "Dr. GRPO"),
    ("result = (rewards - rewards.mean()) / rewards.var(ddof=1)", "divides by the variance; the standard"),
    ("result = (rewards - np.median(rewards)) / rewards.std(ddof=1)", "subtracts the median"),
    ("result = (rewards - rewards.mean()) / rewards.std(ddof=1)", "everyone earns the same"),
    ("result = (rewards.mean() - rewards) / (rewards.std(ddof=1) + 1e-4)", "sign is turned round"),
    ("result = abs(rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)", "sign is lost (abs)"),
    ("result = (rewards - rewards.max()) / (rewards.std(ddof=1) + 1e-4)", "subtracts the largest"),
    ("result = rewards / (rewards.std() + 1e-4)", "compared with its siblings; and this is the population"),
    ("result = ((rewards - rewards.mean()) / rewards.std(ddof=1))[0]", "8 advantages"),
    ("result = np.array([-0.6, 2.1, 0.2, -0.6, 0.2, -0.6, -0.6, -0.6])", "3 advantages"),
    ("result = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1)", "must be small"),
    ("result = (rewards - rewards.mean()) / np.sqrt(rewards)", "should be"),
    ("(rewards - rewards.mean()) / rewards.std(ddof=1)\nresult = None", "returns nothing"),
    ("result = (reward - reward.mean()) / reward.std(ddof=1)", "NameError: name 'reward'"),
)  # fmt: skip
