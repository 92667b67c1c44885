"""Right answers to the exercises, other than their solutions, that a check must not refuse."""

LINE = "last = text.strip().splitlines()[-1]\nm = re.fullmatch(r'#### *(-?[0-9]{1,3}(?:,[0-9]{3})+|-?[0-9]+)', last)\n"
CLAIM = (
    'claim = "No evidence of a difference" if p >= 0.05 else "A gain" if gained > lost else "A loss"\n'
    'sentence = f"{claim}: the tuned model newly solves {gained} problems and no longer solves {lost}. "\n'
    'if p >= 0.05:\n    sentence += "%s"'
)
EVIDENCE = 'evidence = {"A": ("reward", "heldout/strict"), "B": %s, "D": %s}'
RIGHT_ANSWERS = [
    ("00_start_here", "advantages", "result = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)"),
    (
        "01_gsm8k",
        "smallest_limit",
        "import numpy as np\nlimit = int(np.quantile(lengths, 0.95, method='inverted_cdf'))",
    ),
    (
        "03_reward_hacking",
        "patch",
        LINE + "paid = bool(m) and text.count('####') == 1 and m[1].replace(',', '') == gold",
    ),
    (
        "03_reward_hacking",
        "patch",
        "parts = text.split('####')\n"
        "m = re.fullmatch(r'-?\\d+(,\\d{3})*(\\.\\d+)?\\.?', parts[-1].strip())\n"
        "paid = len(parts) == 2 and bool(m) and float(m[0].rstrip('.').replace(',', '')) == float(gold)",
    ),
    ("04_baseline", "stopped", "kept = text.split('\\nQuestion:')[0].strip()"),
    (
        "06_train",
        "verdict",
        "cut, same = (log[name].dropna().tail(5).mean() >= 0.5 for name in ('truncated', 'equal_groups'))\n"
        "answer = 'cut off' if cut else 'equal groups' if same else 'can learn'",
    ),
    ("08_curves", "evidence", EVIDENCE % ('("grad_norm", "length")', '("length", "heldout/strict")')),
    ("08_curves", "evidence", EVIDENCE % ('["entropy", "length"]', '{"truncated", "reward"}')),
    (
        "09_compare",
        "conclusion",
        CLAIM % "This does not show that training had no effect; the test may be too small.",
    ),
    ("09_compare", "conclusion", CLAIM % "That is not evidence that training had no effect."),
    ("09_compare", "conclusion", CLAIM % "This does not prove that the two models are equal."),
    ("09_compare", "conclusion", CLAIM % "The models may or may not be equally good."),
    ("10_your_own_task", "broken", "import numpy as np\nbroken = np.array([2, 3, 5, 6, 7])"),
    ("10_your_own_task", "broken", "broken = (7, 6, 5, 3, 2)"),
    (
        "12_variants",
        "corrected",
        "result = [min(1, max((len(p) - i) * p[i] for i in range(j + 1))) for j in range(len(p))]",
    ),
]
