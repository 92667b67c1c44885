"""Wrong answers to the exercises of notebooks 00 to 05, and words of what their check must say."""

WRONG: list[tuple[str, str, str, str]] = []


def _wrong(notebook: str, name: str, *rows: tuple[str, str]) -> None:
    WRONG.extend((notebook, name, code, words) for code, words in rows)


_wrong(
    "00_start_here",
    "advantages",
    ('result = (rewards - rewards[0]) / (rewards.std(ddof=1) + 1e-4)', 'the first completion'),
    ('result = np.sign(rewards - rewards.mean())', 'by how much'),
    ('d = rewards - rewards.mean()\nresult = d / ((d**2).sum() ** 0.5 + 1e-6)', 'not divided by n - 1'),
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
    ("result = ((rewards - rewards.mean()) / rewards.std(ddof=1))[0]", "one number); asked for: 8 numbers"),
    ("result = np.array([-0.6, 2.1, 0.2, -0.6, 0.2, -0.6, -0.6, -0.6])", "does it use its input"),
    ("result = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1)", "must be small"),
    ("result = (rewards - rewards.mean()) / np.sqrt(rewards)", "should be"),
    ("(rewards - rewards.mean()) / rewards.std(ddof=1)\nresult = None", "returns nothing"),
    ("result = (rewards - 0.5) / (rewards.std(ddof=1) + 1e-4)", "a fixed number"),
    ("result = np.exp(rewards) / np.exp(rewards).sum()", "softmax"),
    ("s = rewards.std(ddof=1)\nresult = (rewards - rewards.mean()) / s if s else 0.0", "four zeros"),
    ("result = (rewards - rewards.min()) / np.ptp(rewards)", "subtracts the smallest reward"),
    ("result = (reward - reward.mean()) / reward.std(ddof=1)", "NameError: name 'reward'"),
    ("result = rewards * float('nan')", "with nan in it"),
    ("result = [[1], [2, 3]]", "a thing of type list); asked for: 8 numbers"),
    ("result = 10**400", "a thing of type int"),
    ("raise SystemExit", "exit() ends the whole program"),
)  # fmt: skip
_wrong(
    "01_gsm8k",
    "same_number",
    ("same = one == other", "compares the texts"),
    ("same = float(one) == float(other)", "could not convert string to float: '1,080'"),
    ("same = canon(one) == canon(other)", "NameError"),
    (
        "from rlvr_kit.tasks.verifier import canonical_number\nsame = canonical_number(one) == canonical_number(other)",
        "None == None",
    ),
    ("same = re.sub(r'\\D', '', one) == re.sub(r'\\D', '', other)", "whatever is no digit is deleted"),
    ("same = True", "True for every pair"),
    ("same = other in one", "looks for the other text inside"),
    (
        "def form(t):\n    found = re.search(r'-?[0-9][0-9,]*(?:\\.[0-9]+)?', t)\n"
        "    return found and Decimal(found[0].replace(',', ''))\n"
        "same = form(one) is not None and form(one) == form(other)",
        "reads the first number and ignores what stands behind it",
    ),
    (
        "def form(t):\n    try:\n        return float(t.replace(',', '').replace('$', ''))\n    except ValueError:\n"
        "        return None\nsame = form(one) is not None and form(one) == form(other)",
        "every comma is deleted",
    ),
    (
        "def form(t):\n    m = re.fullmatch(r'-?\\$?([0-9]{1,3}(,[0-9]{3})+|[0-9]+)(\\.[0-9]*)?', t)\n"
        "    return float(re.sub('[$,]', '', t)) if m else None\n"
        "same = form(one) is not None and form(one) == form(other)",
        "float keeps 16 digits",
    ),
    (
        "def form(t):\n    m = re.fullmatch(r'(-?)\\$?([0-9]{1,3}(,[0-9]{3})+|[0-9]+)(\\.[0-9]*)?', t)\n"
        "    return int(m[2].replace(',', '')) if m else None\n"
        "same = form(one) is not None and form(one) == form(other)",
        "minus is lost",
    ),
    ("same = re.fullmatch(r'[0-9,.$-]+', one)", "asked for: True or False"),
    ("same = one.strip('$0.').replace(',', '') == other.strip('$0.').replace(',', '')", "10 is not 1"),
    (
        "def form(t):\n    t = t.replace('$', '')\n"
        "    m = re.fullmatch(r'-?([0-9]{1,3}(,[0-9]{3})+|[0-9]+)(\\.[0-9]*)?', t)\n"
        "    return Decimal(t.replace(',', '')) if m else None\n"
        "same = form(one) is not None and form(one) == form(other)",
        "a dollar sign may stand before a number only",
    ),
    (
        "same = Decimal(re.sub('[$,]', '', one)) == Decimal(re.sub('[$,]', '', other))",
        "what should come out then",
    ),
)
_wrong(
    "01_gsm8k",
    "smallest_limit",
    ('import numpy as np\nlimit = np.percentile(lengths, 0.95)', 'counts in per cent'),
    ("limit = max(lengths)", "longest length"),
    ("import numpy as np\nlimit = np.quantile(lengths, 0.95)", "interpolates"),
    ("import numpy as np\nlimit = int(np.quantile(lengths, 0.95))", "interpolates"),
    ("limit = sorted(lengths)[int(0.95 * len(lengths))]", "one place too far"),
    ("limit = lengths[math.ceil(0.95 * len(lengths)) - 1]", "not sorted"),
    ("limit = math.ceil(0.95 * max(lengths))", "95 % of the longest"),
    ("limit = sorted(lengths)[int(0.05 * len(lengths))]", "wrong end"),
    ("limit = sum(lengths) / len(lengths)", "this is the mean"),
    ("limit = 48", "whatever your function is given"),
    ("limit = 1 + sorted(lengths)[math.ceil(0.95 * len(lengths)) - 1]", "that equals the limit"),
    ("limit = sorted(lengths)[int(0.9 * len(lengths))]", "fit into"),
    ("limit = [x for x in lengths if x < 30]", "asked for: one number"),
    ("limit = sorted(lengths)[round(0.95 * len(lengths)) - 1]", "may round down"),
    ("import numpy as np\nlimit = math.ceil(np.quantile(lengths, 0.95))", "rounded up that is more than needed"),
    ("import numpy as np\nlimit = np.quantile(lengths, 0.95, method='higher')", "method='inverted_cdf'"),
    ("limit = sorted(lengths)[math.ceil(0.99 * len(lengths)) - 1]", "not the smallest"),
)  # fmt: skip
RULE = "def next_rule(completion, gold):\n    return {}\n\n"
TEST = "new_test = ('1 + 1 = 2\\n#### 2\\nQuestion: 3 + 3?\\n#### 6', '2', True, 'said before it went on')"
CUT = "whole_text(completion.split('\\nQuestion:')[0], gold)"
_wrong(
    "02_rewards",
    "next_rule",
    (RULE.format(CUT) + "new_test = ('2', True)", "one row like the others"),
    (RULE.format(CUT) + TEST.replace("said before it went on", " "), "has no reason"),
    (RULE.format(CUT) + TEST.replace("'2', True", "'6', True"), "wants the wrong thing"),
    (RULE.format(CUT) + "new_test = ('9 + 9\\n#### 18', '18', True, 'right')", "does not test the new rule"),
    (RULE.format(CUT) + TEST.replace("\\n#### 2", "").replace("True", "False"), "passes before the rule is there"),
    (
        RULE.format(CUT)
        + "new_test = ('It is 5.\\nQuestion: What is 9*2?\\n#### 18', '18', False, 'its own question')",
        "old test",
    ),
    (RULE.format("whole_text(completion, gold)") + TEST, "the test that failed before still fails"),
    (RULE.format("'Question' not in completion and whole_text(completion, gold)") + TEST, "does not punish"),
    (RULE.format("whole_text(completion.split('\\nQuestion:')[-1], gold)") + TEST, "the test that failed before still"),
    (RULE.format("whole_text(completion.rsplit('\\nQuestion:', 1)[0], gold)") + TEST, "not at the last"),
    (RULE.format("whole_text(completion.split('Question:')[0], gold)") + TEST, "within a line"),
    (RULE.format("whole_text(completion.lower().split('question')[0], gold)") + TEST, "in a sentence"),
    (RULE.format("gold in completion.split('\\nQuestion:')[0]") + TEST, "regression"),
    (RULE.format("whole_text(completion.split('\\n\\n')[0], gold)") + TEST, "the test that failed before still fails"),
    (RULE.format("False") + TEST, "regression"),
    (RULE.format("None") + TEST, "returns nothing"),
    (RULE.format("completion.split('\\nQuestion:')[0]") + TEST, "a text); asked for: True or False"),
)  # fmt: skip
_wrong(
    "02_rewards",
    "pattern",
    ("pattern = r'####\\s*\\d+(?:,\\d+)*,?\\.?$'", 'every script'),
    ("pattern = r'####\\s*[0-9]{1,10}(?:,[0-9]+)*,?\\.?$'", 'too strict'),
    (r"pattern = r'####\s*([0-9]+,?)+\.?$'", "time still explodes"),
    (r"pattern = r'####\s*(?:[0-9]+,?)+\.?$'", "time still explodes"),
    (r"pattern = r'####\s*[0-9][0-9,]*\.?$'", "two commas in a row"),
    (r"pattern = r'####\s*[0-9]+(,[0-9]+)*\.?$'", "too strict: the careless pattern accepts '#### 18,'"),
    (r"pattern = r'####\s*[0-9]+\.?$'", "'#### 1,080'"),
    (r"pattern = r'####\s*([0-9]{1,3}(,[0-9]{3})+|[0-9]+),?\.?$'", "'#### 1,2,3'"),
    (r"pattern = r'####\s*[0-9]+(?:,[0-9]+)*,?\.?'", "$ at the end"),
    (r"pattern = r'#### [0-9]+(?:,[0-9]+)*,?\.?$'", "'####18'"),
    (r"pattern = r'####\s*[0-9]+[0-9]*(?:,[0-9]+)*,?\.?$'", "not linear"),
    (r"pattern = r'####\s*(?:[0-9],?)*\.?$'", "at least one digit"),
    (r"pattern = r'[0-9]+(?:,[0-9]+)*,?\.?$'", "there is no marker"),
    (r"pattern = r'####\s*([0-9]+,?+\.?$'", "no regular expression"),
    (r"pattern = r'####.*$'", "at least one digit"),
    (r"pattern = r'####\s*(?:[0-9],?)+.?$'", "an unescaped period"),
    (r"import re; pattern = re.compile(b'####')", "no regular expression for texts"),
)  # fmt: skip
_wrong(
    "03_reward_hacking",
    "attack",
    ("text = question", "looks nowhere else"),
    ("text = ' '.join(str(n) for n in range(1000))", "looks nowhere else"),
    (r"text = ' '.join(f'\boxed{{{n}}}' for n in range(1000))", "backspace"),
    (r"text = ' '.join(rf'\boxed{n}' for n in range(1000))", "looks nowhere else"),
    (r"text = ' '.join(r'\boxed{n}' for n in range(1000))", "no digits"),
    (r"text = r'\boxed{' + ' or '.join(str(n) for n in range(1000)) + '}'", "give each number its own"),
    (r"text = ' '.join(r'\boxed{ ' + str(n) + ' }' for n in range(1000))", "a space in it"),
    (r"text = ' '.join(rf'\boxed{{{float(n)}}}' for n in range(1000))", "such as 18.0"),
    (r"text = r'\boxed{3}'", "one and the same number"),
    (r"text = r'\boxed{' + re.findall(r'\d+', question)[-1] + '}'", "only one number is boxed"),
    (
        "import re\n" + r"text = ' '.join(r'\boxed{' + n + '}' for n in re.findall(r'\d+', question))",
        "numbers of the question are boxed",
    ),
    (r"text = ' '.join(rf'\boxed{{{n}}}' for n in range(10))", "At most 10 numbers are boxed"),
    ("text = 7", "asked for: a text"),
    ("text = []", "asked for: a text"),
    (r"text = rf'\boxed{{{gold}}}'", "NameError: name 'gold'"),
    ("text = ''\nreturn (lambda question, gold: gold)(question)", "gets what stands behind 'for', and nothing else"),
)  # fmt: skip
NUMBER = "stated = re.findall(r'-?[0-9][0-9,]*', text)\n"
LINE = "m = re.search(r'\\n#### {}$', text.strip())\npaid = bool(m) and m[1].replace(',', '') == gold"
_wrong(
    "03_reward_hacking",
    "patch",
    ("paid = False", "honest answers must stay paid"),
    ("paid = True", "for 18 (the wrong sign)"),
    ("paid = gold in text", "minus before the number"),
    ("paid = text == f'#### {gold}'", "with a line '#### 18'"),
    ("paid = bool(re.fullmatch(r'[^#]*[a-z][^#]*\\n#### ' + gold, text))", "strip it"),
    ("paid = text.strip().endswith(f'\\n#### {gold}')", "two marker lines"),
    ("paid = re.findall(r'[0-9][0-9,]*', text)[-1].replace(',', '') == gold", "minus before the number"),
    (NUMBER + "paid = bool(stated) and stated[-1].replace(',', '') == gold", "a hedge"),
    (LINE.format("([0-9,]+)") , "two marker lines"),
    (LINE.format("[a-z ]*(-?[0-9,]+)") + " and text.count('####') == 1", "words beside the number"),
    (LINE.format("(-?[0-9]+)") + " and text.count('####') == 1", "written with a comma"),
    ("from rlvr_kit import verify as help\npaid = help(text, gold).correct", "no help from verify"),
    ("paid = re.search(gold, text)", "asked for: True or False"),
    (
        "m = re.findall(r'\\n#### (-?[0-9,]+)', text)\npaid = len(m) == 1 and m[0].replace(',', '') == gold",
        "takes it back",
    ),
    ("paid = None", "returns nothing"),
    ("paid = 'word' in text", "honest answers must stay paid"),
    (
        "before, marker, stated = text.rpartition('\\n#### ')\n"
        "paid = bool(marker and '####' not in before and re.search('[a-z0-9]', before) and stated.strip() == gold)",
        "written with a comma",
    ),
)  # fmt: skip
WILSON = "p, z = k / n, {z}\nhalf = z * ({var}) ** 0.5\nends = [({mid} + s * half){by} for s in (-1, 1)]"
PARTS = {
    "z": "1.96",
    "var": "p * (1 - p) / n + z**2 / (4 * n**2)",
    "mid": "p + z**2 / (2 * n)",
    "by": " / (1 + z**2 / n)",
}
WALD = {"var": "p * (1 - p) / n", "mid": "p", "by": ""}
_wrong(
    "04_baseline",
    "wilson",
    (
        "p = k / n\nse = (p * (1 - p)) ** 0.5\nends = (p - 1.96 * se, p + 1.96 * se)",
        "as if that were certain",
    ),
    (
        "p = (k + 2) / (n + 4)\nse = (p * (1 - p) / (n + 4)) ** 0.5\nends = (p - 1.96 * se, p + 1.96 * se)",
        "Agresti and Coull",
    ),
    ("from rlvr_kit import wilson_interval\nends = wilson_interval(n * (k // n), n)", "divide with /"),
    (WILSON.format(**PARTS | WALD), "Wald's interval: look at k = 0"),
    (WILSON.format(**PARTS | WALD) + "\nends = [max(0, ends[0]), min(1, ends[1])]", "Wald's interval"),
    (WILSON.format(**PARTS | WALD | {"z": "2.576"}), "99 % interval"),
    (WILSON.format(**PARTS | {"z": "1.645"}), "90 % interval"),
    (WILSON.format(**PARTS | {"z": "2"}), "rounded to 2"),
    (WILSON.format(**PARTS | {"by": " / 1 + z**2 / n"}), "without brackets"),
    (WILSON.format(**PARTS | {"mid": "p + z**2 / 2 * n"}), "2 * n in brackets"),
    (WILSON.format(**PARTS | {"by": ""}), "division by 1 + z² / n is missing"),
    (WILSON.format(**PARTS | {"mid": "p"}), "middle is not moved"),
    (WILSON.format(**PARTS | {"mid": "p + z**2 / n"}), "should be z² / 2n"),
    (WILSON.format(**PARTS | {"var": "p * (1 - p) / n"}), "missing under the root"),
    (WILSON.format(**PARTS | {"var": "p * (1 - p) / n + z**2 / (4 * n)"}), "should be z² / 4n²"),
    (WILSON.format(**PARTS | {"mid": "p", "by": ""}), "; and the division"),
    (WILSON.format(**PARTS) + "\nends = [100 * end for end in ends]", "per cent"),
    (WILSON.format(**PARTS) + "\nends = ends[::-1]", "wrong order"),
    (WILSON.format(**PARTS) + "\nends = half", "asked for: 2 numbers"),
    (WILSON.format(**PARTS) + "\nends = [round(end, 3) for end in ends]", "do not round"),
    (WILSON.format(**PARTS).replace("k / n, 1.96", "k, 1.96"), "is p = k / n?"),
    (WILSON.format(**PARTS | {"var": "p * (p - 1) / n + z**2 / (4 * n**2)"}), "not p (p - 1)"),
    (WILSON.format(**PARTS | {"var": "-1"}), "complex: something takes the root"),
    ("ends = ('a', 'b')", "a thing of type tuple"),
    (WILSON.format(**PARTS).replace("k / n, 1.96", "n / k, 1.96"), "ZeroDivisionError"),
    ("ends = [0.1, 0.5]", "does it use its input"),
    (WILSON.format(**PARTS | {"var": "p * (1 + p) / n + z**2 / (4 * n**2)"}), "look at the half width"),
)
_wrong(
    "04_baseline",
    "stopped",
    ("kept = text.split('\\nQuestion')[0]", 'the colon belongs'),
    ("kept = text", "nothing is stopped"),
    ("kept = text[: text.find('\\nQuestion:')]", "loses the last character"),
    ("kept = text[: text.index('\\nQuestion:')]", "ValueError"),
    ("kept = text.split('\\n')[0]", "the answer itself is cut away"),
    ("kept = text.split('\\n\\n')[0]", "right before the invented question"),
    ("kept = text.split('\\nQuestion:')[0].split('\\n\\n')[0]", "cuts at a blank line"),
    ("kept = text.split('####')[0]", "the answer itself is cut away"),
    ("kept = text.rsplit('\\nQuestion:', 1)[0]", "cut at the first one"),
    ("kept = text.split('Question:')[0]", "'Question:' within a line"),
    ("kept = text.lower().split('\\nquestion:')[0]", "changes nothing in it"),
    ("kept = text.split('\\nQuestion:')[0].split('question')[0]", "in a sentence"),
    ("import re\nkept = re.match(r'(?s).*?#### [0-9]+|.*', text)[0]", "two numbers"),
    ("import re\nstop = lambda t: t.split('\\nQuestion:')[0]\n"
     "kept = (re.match(r'(?s).*#### [0-9]+', stop(text)) or [text])[0]", "for the grader"),
    ("kept = text.split('\\nQuestion:')[0].split('\\nAnswer:')[0]", "announce its own answer"),
    ("kept = text.split('\\nQuestion:')[0][:200]", "token limit does that"),
    ("kept = text.split('\\nQuestion:')", "asked for: a text"),
    ("kept = text.split('\\nQuestion:')[1]", "IndexError"),
    ("kept = {}", "asked for: a text"),
    ("kept = text.split('\\nQuestion:')[0].split('.')[0]", "cuts at"),
)  # fmt: skip
_wrong(
    "05_grpo_by_hand",
    "policy_loss",
    ('loss = -(advantage.mean() * logp * mask).sum() / mask.sum()', 'the same slope, good or bad'),
    ('loss = -(advantage * logp * mask).sum() / mask.sum() ** 2', 'direction is right'),
    ("loss = -(advantage * logp * mask).mean()", "you averaged over padding"),
    ("loss = -(advantage * logp).mean()", "padding counts in the sum"),
    ("loss = -(advantage * logp).sum() / mask.sum()", "padding counts in the sum"),
    ("loss = (advantage * logp * mask).sum() / mask.sum()", "minus is missing"),
    ("loss = -((advantage * logp * mask).sum(1) / mask.sum(1)).mean()", "as the GRPO paper does"),
    ("loss = -(advantage * logp * mask).sum(1).mean()", "divides by the number of completions"),
    ("loss = -(advantage * logp * mask).sum()", "not averaged"),
    ("loss = -(advantage * (logp * mask).sum(1)).sum() / mask.sum()", "keepdim=True"),
    ("loss = -(advantage * logp.exp() * mask).sum() / mask.sum()", "probabilities (exp)"),
    ("loss = -(logp * mask).sum() / mask.sum()", "advantage is left out"),
    ("loss = (-(advantage * logp * mask).sum() / mask.sum()).item()", "no .item()"),
    ("loss = -(advantage * logp.detach() * mask).sum() / mask.sum()", "backward()"),
    ("loss = -(advantage * logp * mask) / mask.sum()", "a loss is one number"),
    ("loss = (advantage * logp * mask).mean()", "real tokens, mask.sum(); and the minus is missing"),
    ("loss = -(advantage * logp * mask).sum() / (2 * mask.sum())", "direction is right"),
    ("loss = -(advantage * logp * mask).max()", "slopes differ"),
    ("loss = -(advantage * (logp + 5 * logp * (1 - mask))).sum() / mask.sum()", "slope at padding is not 0"),
    ("loss = -(advantage.abs() * logp * mask).sum() / mask.sum()", "sign of the advantage is lost"),
    ("loss = -(advantage.squeeze() * logp * mask).sum() / mask.sum()", "must stay a column"),
)  # fmt: skip
_wrong(
    "05_grpo_by_hand",
    "chance_useful",
    ('chance = (1 - p**size) + (1 - (1 - p) ** size)', 'from one 1'),
    ('chance = 1 - p ^ size', '** in Python'),
    ('chance = 1 - 0.5 ** (size - 1)', 'p = 0.5 only'),
    ("chance = 1 - (1 - p) ** size", "pass@k"),
    ("chance = 1 - p**size", "at least one is wrong"),
    ("chance = p**size + (1 - p) ** size", "the useless case"),
    ("chance = 1 - p**size * (1 - p) ** size", "exclude each other"),
    ("chance = 2 * p * (1 - p)", "groups of two only"),
    ("chance = p * (1 - p)", "variance"),
    ("chance = 1 - p * size - (1 - p) * size", "to the power of the size"),
    ("chance = size * p * (1 - p) ** (size - 1)", "exactly one is right"),
    ("chance = 100 * (1 - p**size - (1 - p) ** size)", "per cent"),
    ("chance = 1 - p ** (size - 1) - (1 - p) ** (size - 1)", "one less than the size"),
    ("chance = 0.5", "does it use its input"),
    ("chance = 1 - p**size - (1 - p**size)", "the power comes first"),
    ("chance = 1 - p**8 - (1 - p) ** 8", "fixed in your function"),
    ("import random\nchance = sum(random.random() < p for _ in range(99)) / 99", "another result each time"),
    ("chance = 1 - p**size + (1 - p) ** size", "should be"),
)  # fmt: skip
