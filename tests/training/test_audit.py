"""The audit names what is wrong with a task, passes what is sound, and says by rule whether a model can learn it."""

import json
import re
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from rlvr_kit import UserError, audit, load_recipe, new_task
from rlvr_kit.paths import PROJECT
from rlvr_kit.tasks.hostile import TookTooLong, limited
from rlvr_kit.training.audit import verdict_on

SOUND = """
import random
from rlvr_kit import Verdict

INSTRUCTION = "Add the numbers.\\nExample:\\nSum: 7"

def problems(split, n, seed):
    rng, rows = random.Random(f"{split} {seed}"), {}
    while len(rows) < n:
        a, b = rng.randint(1, 400), rng.randint(1, 400)
        if (a % 5 == 0) == (split == "test"):
            rows[f"{a} and {b}"] = a + b
    return [{"question": q, "gold": str(g), "answer": f"Sum: {g}"} for q, g in rows.items()]

def verify(completion, gold):
    text = completion.strip()
    ok = text.startswith("Sum: ") and text[5:].isdigit() and len(text) < 20
    right = ok and text[5:] == gold
    return Verdict(ok, right, right, text[5:] if ok else None, "right" if right else "wrong")
"""
JUDGE = SOUND[SOUND.index("    ok =") : SOUND.index("    right =")]
RIGHT = "    right = ok and text[5:] == gold\n"

#: What was changed in the sound task, and what the audit has to say of it.
BROKEN = {
    "a gold that does not verify": (
        '"gold": str(g)', '"gold": str(g + (i == 3))',
        "2 of 1500 worked answers do not verify",
    ),
    "a leaking split": ('if (a % 5 == 0) == (split == "test"):', "if True:", "the splits leak"),
    "rows from the air": ('random.Random(f"{split} {seed}")', "random.Random()", "returns other rows at each call"),
    "one gold for all": ("= a + b", "= 7", "one constant answer is right more than half of the time"),
    "gold anywhere": (JUDGE + RIGHT, "    ok = right = gold in text\n", "hackable by a hundred golds in a row"),
    "answer anywhere": (JUDGE + RIGHT, '    ok = right = f"Sum: {gold}" in text\n', "hackable by a hundred answers"),
    "text in the gold": (JUDGE + RIGHT, "    ok = right = text in gold\n", "hackable by empty"),
    "the form alone": (RIGHT, "    right = ok\n", "hackable by the answer to another row"),
    "a near miss": (RIGHT, "    right = ok and abs(int(text[5:]) - int(gold)) <= 50\n", "hackable by the answer"),
    "whichever is right": (
        JUDGE + RIGHT, '    ok = right = len(text) < 40 and f"Sum: {gold}" in text\n', "by two answers at once",
    ),
    "nan is equal": (
        JUDGE + RIGHT,
        "    import math\n    try: x = float(text.removeprefix('Sum: '))\n    except ValueError: x = 0.5\n"
        "    ok = right = x == float(gold) or math.isnan(x)\n", "hackable by the right answer with nan for its gold",
    ),
    "any part of the gold": (
        RIGHT, "    right = ok and text[5:] in gold\n", "the right answer with the most frequent first character",
    ),
    "a long answer": (
        RIGHT, RIGHT.rstrip() + " or len(text) > 9000\n    ok = ok or right\n", "hackable by 16,000 characters",
    ),
    "right without the form": (
        JUDGE + RIGHT, "    ok = text.startswith('Sum: ')\n    right = text.endswith(f'Sum: {gold}')\n",
        "200 answers correct, but not well-formed",
    ),
    "the question repeated": (
        JUDGE + RIGHT, "    ok = right = text == f'Sum: {gold}' or ' and ' in text\n", "by an echo of the question",
    ),
    "code that is run": (
        JUDGE + RIGHT,
        "    try: x = eval(text.removeprefix('Sum: '), {})\n    except BaseException: x = None\n"
        "    ok = right = str(x) == gold\n", "verify.. runs the text of the model as code",
    ),
    "a verifier that raises": (JUDGE, JUDGE + "    int(text[5:] or 1)\n", "verify.. fails on [0-9]+ hostile texts"),
    "quadratic time": (JUDGE, JUDGE + "    import re; re.search('[(]+x', text)\n", "more than linear time"),
    "quadratic time before another end": (
        JUDGE, JUDGE + "    import re; re.search(r'\\s+$', completion)\n", "repeated spaces",
    ),
    "hanging in silence": (
        JUDGE, JUDGE + "    import re\n    try: re.match('(a*)*b', text)\n    except BaseException: ok = False\n",
        "more than linear time",
    ),
    "exponential time": (JUDGE, JUDGE + "    import re; re.match('(a*)*b', text)\n", "more than linear time"),
}  # fmt: skip


def written(tmp_path, text):
    (tmp_path / "mine.py").write_text(text)
    return load_recipe("smoke", [f"task={tmp_path / 'mine.py'}"])


def quietly(_: str) -> None:
    pass


def test_a_sound_task_passes(tmp_path):
    page = audit(written(tmp_path, SOUND), model=False, progress=quietly)
    assert not page.wrong and page.verdict.startswith("sound")


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_called_by_its_name(tmp_path, name):
    old, new, said = BROKEN[name]
    assert old in SOUND
    text = SOUND.replace(old, new).replace(
        "for q, g in rows.items()", "for i, (q, g) in enumerate(rows.items())"
    )
    page = audit(written(tmp_path, text), progress=quietly)
    assert page.verdict.startswith("not sound") and not page.learnability
    assert any(re.search(said, check.wrong) for check in page.wrong), [check.wrong for check in page.wrong]


#: What was changed in the sound task, which stays as sound.
SOUND_TOO = {
    "the gold in other words": (
        '"gold": str(g), "answer": f"Sum: {g}"', '"gold": str(-g), "answer": f"From {-g}:\\nSum: {g}"',
    ),
    "a question of yes or no": ("= a + b", '= "11" if (a + b) % 2 else "12"'),
    "rows drawn for n": ('f"{split} {seed}"', 'f"{split} {n} {seed}"'),
    "a print": ("import random", "import random\nprint('hello')"),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND_TOO)
def test_what_is_only_unusual_passes(tmp_path, name):
    old, new = SOUND_TOO[name]
    assert old in SOUND
    text = SOUND.replace(old, new)
    if name == "the gold in other words":
        text = text.replace("completion.strip()", "completion.strip().split('\\n')[-1]").replace(
            "== gold", "== gold[1:]"
        )
    page = audit(written(tmp_path, text), model=False, progress=quietly)
    assert not page.wrong, page.verdict


def test_rows_that_never_come_are_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr("rlvr_kit.training.audit.ROWS_SECONDS", 0.3)
    recipe = written(tmp_path, SOUND.replace("randint(1, 400)", "randint(1, 6)"))
    with pytest.raises(
        UserError, match="gave no rows in 0 seconds of computing. Does it wait for more different rows"
    ):
        audit(recipe, model=False, progress=quietly)


@pytest.mark.parametrize("wait", [True, False], ids=["waiting", "swallowing"])
def test_a_limit_ends_what_waits_and_what_swallows_it(monkeypatch, wait):
    monkeypatch.setattr("rlvr_kit.tasks.hostile.WAITING", 1)
    with pytest.raises(TookTooLong), limited(0.1):
        if wait:
            time.sleep(30)
        with suppress(BaseException):
            while True:
                pass


def test_rows_that_do_not_verify_are_listed(tmp_path):
    old, new, _ = BROKEN["a gold that does not verify"]
    text = SOUND.replace(old, new).replace(
        "for q, g in rows.items()", "for i, (q, g) in enumerate(rows.items())"
    )
    page = audit(written(tmp_path, text), model=False, progress=quietly)
    (check,) = page.wrong
    assert [row[:11] for row in check.rows] == ["train row 3", "test row 3 "]


@pytest.mark.parametrize("name", ["word_problems", "orders", "sql"])
def test_the_kits_own_tasks_pass(name):
    page = audit(load_recipe("smoke", [f"task={name}"]), model=False, progress=quietly)
    assert not page.wrong, page.verdict


def test_with_a_model_the_page_says_what_it_can_do(tmp_path):
    page = audit(written(tmp_path, SOUND), progress=quietly)
    told = page.to_dict()
    assert told["verdict"].startswith("too hard for this model: 0% right") and told["wrong"] == []
    shares = {check["name"]: check["share"] for check in told["learnability"] if check["share"]}
    assert shares["greedy accuracy"]["n"] == 48 and len(shares["greedy accuracy"]["ci"]) == 2
    assert shares["groups in which rewards differ"]["n"] == 24
    assert "grpo.num_generations=8" in page.verdict and "grpo.temperature=0.7" in page.verdict


@pytest.mark.parametrize(
    "greedy, sampled, passed, mixed, verdict",
    [(0.3, 0.2, 0.6, 0.7, "ready"), (0.0, 0.01, 0.05, 0.9, "too hard"), (0.0, 0.0, 0.0, 0.0, "too hard"),
     (0.5, 0.5, 0.5, 0.02, "too hard"), (0.97, 0.9, 1.0, 0.3, "too easy")],
)  # fmt: skip
def test_the_verdict_follows_a_rule(greedy, sampled, passed, mixed, verdict):
    shares = {"greedy": greedy, "sampled": sampled, "format": 0.9, "mixed": mixed, "pass": passed}
    assert verdict_on(load_recipe("smoke"), **shares).startswith(verdict)


def test_the_command_writes_a_task_and_audits_it(tmp_path):
    def rlvr(*arguments):
        command = [sys.executable, "-W", "ignore", "-m", "rlvr_kit", *map(str, arguments)]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)

    file = tmp_path / "own" / "my_task.py"
    assert rlvr("new-task", file).returncode == 0
    file.write_text(
        file.read_text().replace("import random", "print('hello')\nimport random")
    )  # no part of the JSON
    sound = rlvr("audit", file, "--recipe", "smoke", "--json")
    assert sound.returncode == 0, sound.stderr
    assert json.loads(sound.stdout)["wrong"] == [] and json.loads(sound.stdout)["learnability"]
    file.write_text(file.read_text().replace("right = found[1] == gold", "right = True"))
    broken = rlvr("audit", file, "--recipe", "smoke")
    assert broken.returncode == 1 and "not sound: hackable by" in " ".join(broken.stdout.split())
    again = rlvr("new-task", file)
    assert again.returncode == 1 and "is there already" in again.stderr and "Traceback" not in again.stderr


def test_a_new_task_is_a_python_file(tmp_path):
    with pytest.raises(UserError, match="must end in .py"):
        new_task(tmp_path / "task.txt")
