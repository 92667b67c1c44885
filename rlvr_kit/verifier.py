r"""Decide what a completion answered and whether it is right: the one place in the kit that does.

A completion reasons and then ends with one line ``#### N``, as GSM8K's own solutions do. Two readings of it:

- strict, which the rewards pay for: the marker line, exactly as asked for;
- lenient, which is only ever reported: the last number in the text, however it was written.

Every rule was decided on one principle: a human marker would agree, and a policy could not exploit it.

=====================  ===========================================================================================
rule                   what it says
=====================  ===========================================================================================
right number           one marker line, last, after reasoning, holding one number that equals the gold: 1.5 in all
wrong number           the same with another number, whatever its distance to the gold: the format's 0.5 alone
no marker              no line starts with exactly four ``#`` (not three or five, nothing before them): no reward
two markers            more than one line starts so, even indented or in bold, whichever is right: no reward
text after marker      the marker line must be the last line that is not blank
no reasoning           a letter or a digit must stand before the marker line; punctuation is not reasoning
not one number         the marker line holds one plain number and nothing else: no unit, word, markup or second one
plain decimal          ASCII digits with at most one point: 18, 18.0, .5, 018; never 1e3, inf, 0x12, other scripts
thousands separators   commas every three digits, or none: 1,080 but not 1,2,3 or 12,34 or 0,018; never 1 080, 1_080
sign                   one leading minus (ASCII, U+2212 or a Unicode dash) or plus, before or after the dollar; -0 is 0
dollar and percent     one ``$`` before and one ``%`` after the number change nothing
closing period         one period at the end of the line changes nothing
thirty digits          a number of more than 30 digits is not read
not an expression      36/2, 3*6, 16-3, 5:30, 18 or 19 are not numbers; nothing is ever evaluated
whitespace             Unicode spaces, tabs and any line ends around the marker line are ignored
invisible characters   zero-width, bidirectional and control characters on the marker line spoil it
last number            lenient: the last number counts, in any markup and with any unit or sentence after it
follow-up question     lenient: the text is cut before a line ``Question:`` or ``Q:`` or a chat role marker
exponents and names    lenient: digits that follow a letter, ``^`` or ``_`` (m^2, CO2, x_1) are passed over
minus or hyphen        lenient: a dash is a minus only if no letter, digit or bracket stands before it
unreadable gold        a gold that is not one plain number makes nothing correct, and says so
=====================  ===========================================================================================

Numbers are compared as decimal strings in lowest form: exact, and never a float. All of it takes linear time.
"""

import re
from dataclasses import dataclass

from rlvr_kit import UserError

_MINUS = "-\u2212\u2010\u2011\u2013\ufe63\uff0d"
_NUMBER = re.compile(
    rf"(?:(?P<sign>[{_MINUS}+])?(?:\$ ?)?|\$ ?(?P<inner>[{_MINUS}+]))"
    r"(?P<whole>[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+|(?=\.))(?:\.(?P<fraction>[0-9]+))?(?: ?%)?\.?"
)
_MAX_DIGITS = 30
_MAX_LENGTH = 64  # no plain number of 30 digits needs more; a cheap guard before any pattern runs

_REASONING = re.compile(
    r"[^\W_\u115f\u1160\u3164\uffa0]"
)  # a letter or digit; these four "letters" are blank
_MARKER_LINE = re.compile(r"[^\w#]*####(?!#)")

_FOLLOW_UP = re.compile(r"\n[ \t>*#_]*(?:question|problem|q|user|human|assistant|system)(?: ?\d+)?\**:", re.I)
_ROLE = re.compile(r"<\|\w+\|>|\[/?INST\]|</s>|<(?:start|end)_of_turn>")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_GROUPING = re.compile(r"(?<=\d)(?:\{,\}|,?\\[,!;: ]|[\u00a0\u2009\u202f])(?=\d{3})")
_JOIN = rf".,:/^*x\u00d7+{_MINUS}"
_LAST_START = re.compile(rf"(?s).*(?<![\w^])(?<![\^_]\{{)(?<!\d[{_JOIN}])\d")
_TOKEN = re.compile(
    rf"\d(?:\d|[{_JOIN}](?=\d)|[eE][+-]?(?=\d)|[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079\u2150-\u215e])*"
)
_PREFIX = re.compile(
    rf"(?:(?<![\w.)\]}}%\u2014{_MINUS}])(?P<sign>[{_MINUS}]))?(?:\\?\$ ?(?P<inner>[{_MINUS}])?)?(?P<dot>(?<![\w.])\.)?$"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found.

    ``correct`` implies ``format_ok`` and ``lenient_correct``. ``extracted`` is the number on the marker line if the
    completion is well-formed, otherwise the last number in it, in canonical form. ``why`` opens with the name of the
    rule that decided.
    """

    format_ok: bool
    correct: bool
    lenient_correct: bool
    extracted: str | None
    why: str


def canonical_number(text: str) -> str | None:
    """The one plain number that `text` is, in lowest form; None when it is anything else.

    >>> canonical_number("$1,080.00"), canonical_number("\u22125%."), canonical_number("18 or 19")
    ('1080', '-5', None)
    """
    text = text.strip()
    if len(text) > _MAX_LENGTH:
        return None
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    whole = match["whole"].replace(",", "")
    fraction = match["fraction"] or ""
    if not 0 < len(whole) + len(fraction) <= _MAX_DIGITS:
        return None
    value = whole.lstrip("0") or "0"
    if fraction := fraction.rstrip("0"):
        value += "." + fraction
    negative = (match["sign"] or match["inner"] or "+") in _MINUS and value != "0"
    return "-" + value if negative else value


def gold_answer(answer: str) -> str:
    """The canonical gold of a worked solution that ends with a line ``#### N``, as GSM8K's ``answer`` column does.

    >>> gold_answer("He sprints 3*3=<<3*3=9>>9 times\\n#### 9")
    '9'

    Raises:
        UserError: the last line is not ``####`` and one plain number.
    """
    last = answer.rstrip().splitlines()[-1:] or [""]
    number = canonical_number(last[0][4:]) if last[0].startswith("####") else None
    if number is None:
        raise UserError(f"the answer does not end with a line '#### N': it ends {ascii(last[0][-60:])}")
    return number


def verify(completion: str, gold: str) -> Verdict:
    """Judge one completion against the gold answer. Never raises, whatever the text.

    >>> verify("16 - 3 - 4 = 9 eggs, 9 * 2 = 18 dollars.\\n#### 18", "18")
    Verdict(format_ok=True, correct=True, lenient_correct=True, extracted='18', why='right number: 18')
    >>> verify("The answer is 18 dollars.", "18").why
    'no marker: no line starts with ####'
    """
    target = canonical_number(gold)
    number, problem = _read_marker(completion)
    well_formed = number is not None
    if number is None:
        number = _last_number(completion)
    right = number is not None and number == target
    if target is None:
        problem = f"unreadable gold: {ascii(gold[:40])}"
    elif well_formed:
        problem = f"right number: {number}" if right else f"wrong number: {number}, not {target}"
    return Verdict(well_formed, well_formed and right, right, number, problem)


def _read_marker(completion: str) -> tuple[str | None, str]:
    """The number on the marker line of a well-formed completion, or None and what is wrong with it."""
    lines = completion.rstrip().splitlines() or [""]
    last = lines[-1]
    markers = [line for line in lines if "####" in line and _MARKER_LINE.match(line)]
    if not any(line.startswith("####") for line in markers):
        return None, "no marker: no line starts with ####"
    if len(markers) > 1:
        return None, f"two markers: {len(markers)} lines start with ####"
    if last is not markers[0]:
        return None, f"text after marker: {ascii(last.strip()[:40])}"
    number = canonical_number(last[4:])
    if number is None:
        return None, f"not one number: {ascii(last[4:].strip()[:40])}"
    if not any(map(_REASONING.search, lines[:-1])):
        return None, "no reasoning: nothing before the marker line"
    return number, ""


def _last_number(text: str) -> str | None:
    """The last number in the text, before any follow-up question; None when there is none or it cannot be read."""
    text = text.lstrip()
    if cut := _FOLLOW_UP.search(text):
        text = text[: cut.start()]
    if ("<" in text or "[" in text) and (cut := _ROLE.search(text, 1)):
        text = text[: cut.start()]
    if not text.isascii():
        text = _INVISIBLE.sub("", text)
    if not text.isascii() or "\\" in text or "{," in text:
        text = _GROUPING.sub(",", text)
    found = _LAST_START.match(text)
    if found is None:
        return None
    start = found.end() - 1
    token = _TOKEN.match(text[start : start + 2 * _MAX_LENGTH])
    before = _PREFIX.search(text, max(0, start - 5), start)
    body = re.sub(r"(?a)^(\d{1,2}):00$", r"\1", token[0])
    sign = "-" if before["sign"] or before["inner"] else ""
    return canonical_number(sign + ("." if before["dot"] else "") + body)
