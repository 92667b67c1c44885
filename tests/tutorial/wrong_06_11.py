"""Wrong answers to the exercises of notebooks 06 to 11, and words of what their check must say."""

WRONG: list[tuple[str, str, str, str]] = []


def _wrong(notebook: str, name: str, *rows: tuple[str, str]) -> None:
    WRONG.extend((notebook, name, code, words) for code, words in rows)


_wrong(
    "06_train",
    "problems",
    ("problems = batch * passes * processes", "you count completions"),
    ("problems = batch * passes * processes * group", "completions, not problems"),
    ("problems = batch * processes // group", "gradient accumulation"),
    ("problems = batch * passes // group", "left out the processes"),
    ("problems = batch * passes // processes // group", "do not share it out"),
    ("problems = batch // group * passes * processes", "round too early"),
    ("problems = batch // group", "one pass on one device"),
    ("problems = batch * passes * processes - group", "in groups of 8"),  # not on the list
    ("problems = batch * processes // (group * passes)", "multiply by them"),
    ("problems = group", "how many completions are that"),
    ("problems = 8", "does it use its input"),
    ("problems = Batch // group", "NameError"),
)
_LAST = 'last = log.dropna(subset=["reward"]).tail(5)\n'
_RULE = 'answer = "cut off" if last.truncated.mean() >= 0.5 else "equal groups" if last.equal_groups.mean() >= 0.5'
_wrong(
    "06_train",
    "verdict",
    (f'last = log\n{_RULE} else "can learn"', "mean of the whole run"),
    (f'last = log[1:].head(5)\n{_RULE} else "can learn"', "the first five steps"),
    (f'last = log.tail(1)\n{_RULE} else "can learn"', "a single dot"),
    (
        f"{_LAST}cut, same = last.truncated.mean() >= 0.5, last.equal_groups.mean() >= 0.5\n"
        'answer = "equal groups" if same else "cut off" if cut else "can learn"',
        "ask for the cause first",
    ),
    (f'{_LAST}{_RULE.replace("0.5", "50")} else "can learn"', "from 0 to 1"),
    (f'{_LAST}{_RULE.replace(">=", ">")} else "can learn"', "half or more"),
    (f'{_LAST}answer = "cut off" if last.truncated.mean() >= 0.5 else "can learn"', "cut-off completions only"),
    (f'{_LAST}answer = "equal groups" if last.equal_groups.mean() >= 0.5 else "can learn"', "equal groups only"),
    (f'{_LAST}{_RULE.replace("mean", "max")} else "can learn"', "for their mean"),
    ('answer = "equal groups" if log.loss.tail(5).abs().mean() < 0.001 else "can learn"', "a loss of 0 is no illness"),
    (f'{_LAST}{_RULE} else "fine"', "it should be one of"),
    ('answer = "can learn"', "does your function look at it"),
    (f'{_LAST}{_RULE.replace("mean", "min")} else "can learn"', "every one of the last five"),
    (f'{_LAST}{_RULE.replace("mean", "median")} else "can learn"', "most of the five steps"),
    (f'{_LAST}{_RULE.replace(">=", ">", 1)} else "can learn"', "half or more"),
    (f'last = log.dropna().tail(5)\n{_RULE} else "can learn"', "each row with any gap"),
    (f'last = log.tail(5)\n{_RULE} else "can learn"', "a row without a reward"),
    (f'last = log.dropna(subset=["reward"]).tail(4)\n{_RULE} else "can learn"', "more or fewer"),
    (f'last = log.dropna(subset=["reward"]).tail(6)\n{_RULE} else "can learn"', "more or fewer"),
    ("answer = log.truncated.tail(5) >= 0.5", "asked for: a text"),
    (f'last = log.tail(3)\n{_RULE.replace("0.5", "0.2")} else "can learn"', "in its last five steps"),  # unlisted
    ('answer = "cut off" if log.trunc.mean() > 0.5 else "can learn"', "AttributeError"),
)  # fmt: skip
_wrong(
    "07_train_on_sagemaker",
    "most",
    ("dollars = price * machines * minutes / 60", "warm pool is billed"),
    ("dollars = price * (minutes / 60 + keep_alive / 3600)", "left out the machines"),
    ("dollars = price * machines * minutes / 60 + price * keep_alive / 3600", "all machines, not one"),
    ("dollars = price * machines * (minutes + keep_alive / 3600)", "in minutes: divide it by 60"),
    ("dollars = price * machines * (minutes / 60 + keep_alive / 60)", "3600 of them, not 60"),
    ("dollars = price * machines * (minutes / 60 + keep_alive)", "divide it by 3600"),
    ("dollars = price * machines * (minutes + keep_alive) / 60", "3600 of them, not 60"),
    ("dollars = machines * (minutes / 60 + keep_alive / 3600)", "leave out the price"),
    (
        "dollars = 2 * price * machines * (minutes / 60 + keep_alive / 3600)",
        "how many hours",
    ),  # not on the list
    ("dollars = price * machines * max(minutes / 60, keep_alive / 3600)", "how many hours"),
    ("dollars = price * machines * (minute / 60)", "NameError"),
    ("dollars = price * machines * minutes / 60 + keep_alive / 3600", "brackets are missing"),
    ("dollars = price * machines * (minutes // 60 + keep_alive // 3600)", "// cuts hours off"),
    (
        "import math\ndollars = price * machines * math.ceil(minutes / 60 + keep_alive / 3600)",
        "started hours are not rounded up",
    ),
    (
        "dollars = f'${price * machines * (minutes / 60 + keep_alive / 3600):.2f}'",
        "a text); asked for: one number",
    ),
)
_wrong(
    "07_train_on_sagemaker",
    "lost",
    ("lost = save_steps - done % save_steps", "missing to the next checkpoint"),
    ("lost = (done - 1) % save_steps", "one too few"),
    ("lost = save_steps - 1", "the worst case"),
    ("lost = done - save_steps", "takes one interval off"),
    ("lost = save_steps % done", "the wrong way round"),
    ("lost = str(done % save_steps)", "a text); asked for: one number"),
    ("lost = -done % save_steps", "missing to the next checkpoint"),
    ("lost = save_steps", "the worst case"),
    ("lost = done // save_steps", "number of checkpoints"),
    ("lost = done - done % save_steps", "where the last checkpoint is"),
    ("lost = done", "nothing is saved"),
    ("lost = done % save_steps + 1", "one too many"),
    ("lost = done % save_steps or save_steps", "nothing is lost"),
    ("lost = 0", "nothing is ever lost"),
    ("lost = done / save_steps", "whole steps"),
    ("lost = done % 10", "Write down the steps"),  # not on the list
    ("lost = min(done, save_steps)", "the worst case"),
)
_wrong(
    "08_curves",
    "stop",
    ("stop = log.equal_groups.iloc[-1] == 1", "a single dot lets them speak"),
    ("stop = bool(log.equal_groups.tail(5).mean() > 0.5)", "a mean or a single dot"),
    ("stop = len(log) > 5 and bool(log.equal_groups.tail(5).mean() > 0.5)", "have nothing to learn from"),
    ("stop = log.equal_groups.dropna().tail(5).min() == 1", "fewer than five rows"),
    ("stop = len(log) > 10 and log.equal_groups.tail(10).min() == 1", "be less patient"),
    ("stop = len(log) > 20 and log.equal_groups.tail(20).min() == 1", "be less patient"),
    ("stop = bool((log.equal_groups == 1).sum() >= 5)", "eight steps of nine"),
    ("stop = len(log) > 5 and bool(log.equal_groups.tail(5).mean() > 0.9)", "eight steps of nine"),
    ("stop = len(log) > 10 and bool((log.equal_groups.tail(10) == 1).mean() >= 0.5)", "eight steps of nine"),
    ("stop = False", "never ends patient B"),
    ("stop = True", "Nothing is wrong with it there"),
    ("stop = len(log) > 10", "Nothing is wrong with it there"),
    ("stop = int(log.step.max())", "return True (stop) or False"),
    (
        'heldout = log["heldout/strict"].dropna()\nstop = bool(heldout.iloc[-1] < heldout.max())',
        "never ends patient D",
    ),
    ("stop = bool(log.entropy.iloc[-1] < 0.6)", "Nothing is wrong with it there"),
    ("stop = log.equal_group.tail(5).min() == 1", "AttributeError"),
)
_OTHERS = '"B": ("grad_norm", "equal_groups"), "D": ("truncated", "reward")'
_wrong(
    "08_curves",
    "evidence",
    (f'evidence = {{"A": ("reward", "heldout/format"), {_OTHERS}}}', "looks like a run that goes well"),
    (f'evidence = {{"A": ("heldout/strict", "heldout/lenient"), {_OTHERS}}}', "may have any cause"),
    (f'evidence = {{"A": ("reward", "entropy"), {_OTHERS}}}', "entropy says nothing about this cause"),
    (f'evidence = {{"A": ("heldout/strict", "seconds"), {_OTHERS}}}', "it is no sign"),
    (f'evidence = {{"A": ("reward", "rewards/correct"), {_OTHERS}}}', "has no column 'rewards/correct'"),
    (f'evidence = {{"A": ("reward", "reward"), {_OTHERS}}}', "two different columns"),
    (
        'evidence = {"A": ("reward", "heldout/strict"), "B": ("reward", "equal_groups"), "D": ("truncated", "reward")}',
        "what *jumped* in B",
    ),
    (
        'evidence = {"A": ("reward", "heldout/strict"), "B": ("grad_norm", "entropy"), "D": ("truncated", "reward")}',
        "a jump alone does no harm",
    ),
    (
        'evidence = {"A": ("reward", "heldout/strict"), "B": ("length", "reward"), "D": ("equal_groups", "reward")}',
        "*why* no completion of D",
    ),
    (
        'evidence = {"A": ("reward", "heldout/strict"), "B": ("length", "reward"), '
        '"D": ("truncated", "heldout/truncated")}',
        "none of them earns anything",
    ),
    (
        'evidence = {"A": ("reward", "heldout/strict"), "B": ("length", "reward"), "D": ("truncated", "length")}',
        "none of them earns anything",
    ),
    (
        'evidence = {"A": ("reward", "heldout/strict"), "B": ("grad_norm", "loss"), "D": ("truncated", "length")}',
        "loss says nothing",
    ),
    (f'evidence = {{"A": (["reward"], "heldout/strict"), {_OTHERS}}}', "has no column"),
    ('evidence = ("reward", "heldout/strict")', "behind each of the letters"),
    ('evidence = {"A": ("reward", "heldout/strict")}', "behind each of the letters"),
)
_SUM = "sum(comb(lost + gained, i) for i in range(min(lost, gained) + 1)) / 2 ** (lost + gained)"
_wrong(
    "09_compare",
    "mcnemar",
    (f"p = {_SUM}", "one side only"),
    (f"p = 2 * {_SUM}", "the sum passes 1"),
    ("p = min(1, 2 * comb(lost + gained, min(lost, gained)) / 2 ** (lost + gained))", "exactly this split"),
    (f"p = min(1, 2 * {_SUM.replace('min', 'max')})", "the longer tail"),
    (f"p = min(1, 2 * {_SUM.replace('min(lost, gained)', 'lost')})", "the lost ones always"),
    (f"p = min(1, 2 * {_SUM.replace('min(lost, gained)', 'gained')})", "the gained ones always"),
    (f"p = min(1, 2 * {_SUM.replace(') + 1)', '))')})", "one term is missing"),
    (
        "from scipy.stats import chi2\nflips = lost + gained\n"
        "p = float(chi2.sf((lost - gained) ** 2 / flips, 1)) if flips else 1.0",
        "chi-square approximation",
    ),
    (f"p = 1 - min(1, 2 * {_SUM})", "1 - p"),
    (f"p = 3 * {_SUM}", "take twice that"),  # not on the list
    ("p = 0.05", "does it use its input"),
    ("p = abs(gained - lost) / (lost + gained)", "ZeroDivisionError"),
)
#: A conclusion by the rule, with these words for the counts, and one more sentence where nothing was found.
_SAID = (
    'claim = "No evidence of a difference" if p >= 0.05 else "A gain" if gained > lost else "A loss"\n'
    'sentence = f"{{claim}}: {}"\nif p >= 0.05:\n    sentence += ". {}"'
)
_wrong(
    "09_compare",
    "conclusion",
    ("sentence = f'A gain: {gained} newly solved, {lost} lost'", "by the rule"),
    (
        'claim = "A gain" if gained > lost else "A loss" if lost > gained else "No evidence of a difference"\n'
        'sentence = f"{claim}: {gained} newly solved, {lost} lost"',
        "by the sign alone",
    ),
    (
        'claim = "A gain" if p < 0.05 else "No evidence of a difference"\n'
        'sentence = f"{claim}: {gained} newly solved, {lost} lost"',
        "that is a loss",
    ),
    (
        'claim = "No evidence of a difference" if p >= 0.05 else "A loss" if gained > lost else "A gain"\n'
        'sentence = f"{claim}: {gained} newly solved, {lost} lost"',
        "have changed places",
    ),
    (
        'claim = "No evidence of a difference" if p < 0.05 else "A gain" if gained > lost else "A loss"\n'
        'sentence = f"{claim}: {gained} newly solved, {lost} lost"',
        "upside down",
    ),
    (
        'sentence = f"No evidence of a difference: {gained} newly solved, {lost} lost"',
        "never see a difference",
    ),
    (
        'claim = "No evidence of a difference" if p >= 0.05 else "A gain" if gained > lost else "A loss"\n'
        'sentence = f"{claim}: p = {p}"',
        "does not say",
    ),
    *(
        (
            f'claim = "No evidence of a difference" if {rule} else "A gain" if gained > lost else "A loss"\n'
            'sentence = f"{claim}: {gained} newly solved, {lost} lost"',
            "difference where p is below 0.05",
        )
        for rule in ("p >= 0.01", "p >= 0.1", "p > 0.05")
    ),
    (_SAID.format("{lost} gained, {gained} lost", ""), "have the counts changed places"),
    *(
        (_SAID.format("{gained} gained, {lost} lost", no_more), "says more than was seen")
        for no_more in (
            "Training does nothing.",
            "So training did not help.",
            "The models perform alike.",
            "Training made no difference.",
            "Training has no influence on the model.",
        )
    ),
    (
        _SAID.format("{gained} gained, {lost} lost", "") + "\nif p < 0.05 and gained > lost:\n"
        '    sentence += ": this proves that GRPO works"',
        "'proves' says more than was seen",
    ),
    (
        _SAID.format("{gained} gained, {lost} lost", "")
        + "\nif p < 0.05 and gained < lost:\n    sentence += ': training worked well'",
        "'worked' says more than was seen",
    ),
    (
        'claim = "A gain" if gained > lost else "A loss"\n'
        'sentence = f"{claim}: {gained} newly solved, {lost} lost"\n'
        "if p >= 0.05:\n"
        '    sentence = f"No evidence of a difference: {gained} and {lost} show that training had no effect"',
        "says more than was seen",
    ),
    ('sentence = "It is better"', "does not begin with one of"),
    ("sentence = p < 0.05", "asked for: a text"),
    (
        'claim = "No evidence of a difference" if p >= 0.2 else "A gain" if gained > lost else "A loss"\n'
        'sentence = f"{claim}: {gained} newly solved, {lost} lost"',
        "by the rule",  # not on the list: another threshold
    ),
)
_wrong(
    "10_your_own_task",
    "exploit",
    ("text = message", "what is missing most often is the count"),
    ('text = ""', "An empty text holds nothing"),
    ('text = "Anna lamp 12 Paris Monday"', "the same for each message"),
    ('text = message + " Monday Tuesday Wednesday Thursday Friday Saturday Sunday"', "in words or dozens"),
    (
        'text = f"{message} {[*range(12)]} Monday Tuesday Wednesday Thursday Friday Saturday Sunday"',
        "up to 99",
    ),
    ("text = 7", "asked for: a text"),
    ("text = message.upper() + str([*range(100)])", "missing most often"),
    ("text = mesage", "NameError"),
)
_wrong(
    "10_your_own_task",
    "broken",
    ("broken = [2, 3, 5, 6]", "the key `count` twice"),
    ("broken = [2, 3, 6, 7]", "a small letter"),
    ("broken = [1, 2, 3, 5, 6, 7]", "other spaces"),
    ("broken = [2, 3, 4, 5, 6, 7]", "any order"),
    ("broken = [3, 4, 6, 7, 8]", "from 0 to 7"),
    ("broken = [0, 1, 4]", "these are the sound ones"),
    ("broken = []", "does not verify"),
    ("broken = 7", "in a list"),
    ('broken = ["2"]', "is no place"),
    ("broken = [2]", "Python's quotes"),
    ("broken = [False, False, True, True, False, True, True, True]", "places are asked for"),
    ('import json\nbroken = [i for i, gold in enumerate(golds) if "\'" in gold]', "the text"),
)
_BOTH = 'both = reference.merge(other, on="problem", suffixes=("", " of other"))\n'
_wrong(
    "11_try_and_share",
    "same",
    ("share = (reference.completion == other.completion).mean()", "pair the rows"),
    (f'{_BOTH}share = (both["correct"] == both["correct of other"]).mean()', "which answers are right"),
    ("share = (reference.correct == other.correct).mean()", "which rows are right"),
    (f'{_BOTH}share = (both["extracted"] == both["extracted of other"]).mean()', "that were extracted"),
    ("share = float(reference.correct.mean() == other.correct.mean())", "whether the scores are equal"),
    (f'{_BOTH}share = (both["completion"] == both["completion of other"]).sum()', "how many are equal"),
    (f'{_BOTH}share = 100 * (both["completion"] == both["completion of other"]).mean()', "per cent"),
    (f'{_BOTH}share = (both["completion"] != both["completion of other"]).mean()', "share of answers that differ"),
    (f'{_BOTH}share = float((both["completion"] == both["completion of other"]).all())', "whether all are equal"),
    ("share = reference.completion.isin(other.completion).mean()", "occurs anywhere"),
    ("share = 0.5", "does it use its input"),
    (
        "share = sum(a == b for a, b in zip(sorted(reference.completion), sorted(other.completion))) / len(other)",
        "tears answers and problems apart",
    ),
    ("share = 1 - abs(reference.correct.mean() - other.correct.mean())", "difference of the scores"),
    (
        'share = (reference.set_index("problem").completion == other.set_index("problem").completion).mean()',
        "pair them with merge, or sort_index first",
    ),
    *(
        (f'{_BOTH}share = (both["completion"]{how} == both["completion of other"]{how}).mean()', words)
        for how, words in (
            (".str.lower()", "'So' is not 'so'"),
            (".str.strip()", "a blank more or less"),
            (".str.split().map(sorted)", "their order counts"),
        )
    ),
    ("share = other.correct.mean()", "the share is"),  # not on the list,
    ("share = (reference.completions == other.completions).mean()", "AttributeError"),
)  # fmt: skip
_ALL = '{"problems", "prompt", "token limit", "temperature", "stop strings", "verifier"}'
_wrong(
    "11_try_and_share",
    "fair",
    (f'hold_equal = {_ALL} - {{"prompt"}}', "behaves untrained"),
    (f'hold_equal = {_ALL} - {{"temperature"}}', "worse than greedy"),
    (f'hold_equal = {_ALL} | {{"machine"}}', "another question"),
    (f'hold_equal = {_ALL} | {{"number format"}}', "part of what is served"),
    ("hold_equal = {*things}", "nothing left to compare"),
    ("hold_equal = {'problem', 'prompt'}", "is not on the list"),
    ("hold_equal = 'problems'", "in braces"),
    ("hold_equal = set()", "must be equal as well"),
    ('hold_equal = [["problems"], "prompt"]', "is not on the list"),
)
