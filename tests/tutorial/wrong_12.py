"""Wrong answers to the exercises of notebook 12, and words of what must be said about each."""

WRONG = [
    ("12_variants", "token_weight", "weight = advantage / lengths.sum()", "this is the loss dapo"),
    ("12_variants", "token_weight", "weight = advantage / lengths", "divide by their number as well"),
    (
        "12_variants",
        "token_weight",
        "weight = advantage / len(lengths)",
        "divides by the number of completions only",
    ),
    ("12_variants", "token_weight", "weight = advantage / (len(lengths) * lengths.max())", "this is dr_grpo"),
    (
        "12_variants",
        "token_weight",
        "weight = -advantage / lengths / len(lengths)",
        "the sign is turned round",
    ),
    (
        "12_variants",
        "token_weight",
        "weight = advantage * lengths / len(lengths)",
        "multiplies by the length",
    ),
    (
        "12_variants",
        "token_weight",
        "weight = advantage.sum() / lengths.sum()",
        "2 completions need 2 weights",
    ),
    (
        "12_variants",
        "token_weight",
        "weight = advantage / lengths ** 2",
        "the mean over the tokens of a completion",
    ),
    ("12_variants", "corrected", "result = p", "nothing is corrected"),
    ("12_variants", "corrected", "result = np.minimum(1, p * len(p))", "Bonferroni"),
    ("12_variants", "corrected", "result = p * len(p)", "cannot be above 1"),
    (
        "12_variants",
        "corrected",
        "result = np.minimum(1, p * np.arange(len(p), 0, -1))",
        "must not be below the one before it",
    ),
    (
        "12_variants",
        "corrected",
        "result = np.maximum.accumulate(p * np.arange(len(p), 0, -1))",
        "but for the cap",
    ),
    (
        "12_variants",
        "corrected",
        "result = np.minimum(1, np.maximum.accumulate(p * np.arange(1, len(p) + 1)))",
        "the factors run the wrong way",
    ),
    (
        "12_variants",
        "corrected",
        "import scipy.stats\nresult = scipy.stats.false_discovery_control(p)",
        "Benjamini and Hochberg",
    ),
    ("12_variants", "corrected", "result = p.max()", "must come out"),
]
