r"""Decide what a completion answered and whether it is right: the only place in the kit that does.

A completion reasons and then ends with one line ``#### N``, as GSM8K's own solutions do. There are two
readings. The strict one, which the rewards pay for, takes that line exactly as it was asked for. The
lenient one, which is reported and never paid, takes the last number in the text, in any format.

Every rule was decided on one principle: a human marker would agree, and a policy could not exploit it.

====================  ====================================================================================
rule                  what it says
====================  ====================================================================================
right number          one marker line, last, after reasoning, with one number equal to the gold: pays in full
wrong number          the same with any other number, however near: pays for the format alone
no marker             no line starts with exactly four # (not three or five, with nothing before them)
two markers           more than one line starts so, even indented or decorated: refused, whichever is right
text after marker     the marker line must be the last line that is not blank
no reasoning          a letter or a digit must stand before the marker line; punctuation is not reasoning
not one number        nothing but one plain number may stand on the line: no unit, word, markup or second one
plain decimal         ASCII digits, at most one point: 18, 18.0, .5, 018; not 1e3, inf, 0x12 or other scripts
separators            a comma every three digits or none: 1,080; not 1,2,3 or 12,34 or 0,018 or 1 080 or 1_080
sign                  one leading plus or minus (ASCII, U+2212 or a dash), before or after the $; -0 is 0
dollar and percent    one $ before the number and one % after it change nothing
closing period        one period at the end of the line changes nothing
thirty digits         a number of more than 30 digits is not read
not an expression     36/2, 3*6, 16-3 and 5:30 are not numbers; nothing is ever evaluated
whitespace            spaces of any kind around the number and any ends of lines change nothing
invisible characters  zero-width, bidirectional and control characters on the marker line spoil it
follow-up question    what follows a line "Question:" or "Q:" or a chat role marker answers something else
last number           lenient: the last number counts, in any markup, with any unit or sentence after it
joined digits         lenient: 3/4, 10-15 or 2x3 is one thing, and not a number; 5:00 is 5
exponents and names   lenient: digits right after a letter, ^ or _ are passed over: m^2, CO2, x_1
minus or hyphen       lenient: a dash is a minus only with no letter, digit or closing bracket before it
unreadable gold       when the gold is not one plain number, nothing is correct
====================  ====================================================================================

Numbers are compared exactly, as decimal strings in lowest form and never as floats. All of it takes linear time.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from rlvr_kit.errors import InputError

_MINUS = "-\u2212\u2010\u2011\u2013\ufe63\uff0d"  # ASCII first: elsewhere in a class a "-" would mean a range
_NUMBER = re.compile(
    rf"(?:(?P<sign>[{_MINUS}+])?(?:\$ ?)?|\$ ?(?P<inner>[{_MINUS}+]))"
    r"(?P<whole>[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+|(?=\.))(?:\.(?P<fraction>[0-9]+))?(?: ?%)?\.?"
)
# What may surround a number, or end a text. Python counts U+001F as a space, but a reader cannot see it.
_BLANKS = "".join(c for c in map(chr, range(0x3001)) if c.isspace() and c != "\x1f")
_MAX_DIGITS = 30
_MAX_LENGTH = 64  # 30 digits, their separators, sign, $, % and period need less
_MARKER_LINE = re.compile(r"[^\w#]*####(?!#)")
_REASONING = re.compile(r"[^\W_\u115f\u1160\u3164\uffa0]")  # these four letters look like blanks
_TURN = re.compile(r"\n[ \t>*#_]*(?:question|q|user|human|assistant|system)(?: ?\d+)?\**:", re.IGNORECASE)
_ROLE = re.compile(r"<\|\w+\|>|\[/?INST\]|</s>|<(?:start|end)_of_turn>")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_GROUPING = re.compile(r"(?<=\d)(?:\{,\}|,?\\[,!;: ]|[\u00a0\u2009\u202f])(?=\d{3})")  # LaTeX and spaces
_JOIN = rf"{_MINUS}.,:/\^*x\u00d7+"
_LAST_START = re.compile(rf"(?s).*(?<![^\W_])(?<![^\W_]_)(?<!\^)(?<![\^_]\{{)(?<!\d[{_JOIN}])\d")
_POWER = "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079"  # superscripts, and fractions in one character
_TOKEN = re.compile(rf"\d(?:\d|[{_JOIN}](?=\d)|[eE][+-]?(?=\d)|[{_POWER}])*")
_ON_THE_HOUR = re.compile(r"(?<=^\d):00$|(?<=^\d\d):00$")
_PREFIX = re.compile(
    rf"(?P<sign>(?<![{_MINUS}\u2014\w.)\]}}%])[{_MINUS}])?"
    rf"(?:\\?\$ ?(?P<inner>[{_MINUS}])?)?(?P<point>(?<![\w.])\.)?\Z"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a task's `verify` found. ``correct`` implies ``format_ok`` and ``lenient_correct``.

    ``extracted`` is the answer that was read. For numbers it is in lowest form: the number on the marker line of a
    well-formed completion, otherwise the last number of the text. ``why`` begins with the name of the deciding rule.
    """

    format_ok: bool
    correct: bool
    lenient_correct: bool
    extracted: str | None
    why: str
    partial: float | None = field(default=None, repr=False)
    """The share of the answer that is right, for tasks that can measure it. It is a metric, never a reward."""


def verify(completion: str, gold: str) -> Verdict:
    r"""Judge one completion against the gold answer. It never raises, whatever the text is.

    >>> verify("16 - 3 - 4 = 9 eggs at $2 each make 18.\n#### 18", "18")
    Verdict(format_ok=True, correct=True, lenient_correct=True, extracted='18', why='right number: 18')
    >>> verify("The answer is 18 dollars.", "18").why
    'no marker: no line starts with ####'
    """
    number, why = _read_marker(completion)
    format_ok = number is not None
    if not format_ok:
        number = _last_number(completion)
    target = canonical_number(gold)
    right = number is not None and number == target
    if target is None:
        why = f"unreadable gold: {_quote(gold)} is not one plain number"
    elif format_ok:
        why = f"right number: {number}" if right else f"wrong number: {number}, not {target}"
    return Verdict(format_ok, format_ok and right, right, number, why)


def completion_text(completion: str | list[dict[str, Any]]) -> str:
    """Return the text of a completion, which TRL gives as plain text or as chat messages: then the last one counts.

    >>> completion_text([{"role": "assistant", "content": "#### 18"}])
    '#### 18'
    """
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    if isinstance(content, list):  # content blocks: [{"type": "text", "text": "..."}]
        return "".join(block.get("text") or "" for block in content)
    return content or ""


def canonical_number(text: str) -> str | None:
    r"""Return `text` in lowest form when it is one plain number, and None when it is anything else.

    >>> canonical_number("$1,080.00"), canonical_number("\u22125%."), canonical_number("18 or 19")
    ('1080', '-5', None)
    """
    text = text.strip(_BLANKS)
    if len(text) <= _MAX_DIGITS and text.isascii() and text.isdigit():  # usual, and faster
        return text.lstrip("0") or "0"
    match = _NUMBER.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        return None
    whole, fraction = match["whole"].replace(",", ""), match["fraction"] or ""
    if not 0 < len(whole) + len(fraction) <= _MAX_DIGITS:
        return None
    number = f"{whole.lstrip('0') or '0'}.{fraction.rstrip('0')}".rstrip(".")
    negative = (match["sign"] or match["inner"] or "+") in _MINUS
    return "-" + number if negative and number != "0" else number


def gold_answer(answer: str) -> str:
    r"""Return the gold, in lowest form, of a worked solution that ends with a line ``#### N`` (GSM8K's ``answer``).

    Raises UserError when the last line is not ``####`` and one plain number.

    >>> gold_answer("The cost came out to 80,000+50,000=$<<80000+50000=130000>>130,000\n#### 130,000")
    '130000'
    """
    last = answer.rstrip().rpartition("\n")[2]
    number = canonical_number(last[4:]) if last.startswith("####") else None
    if number is None:
        raise InputError(f"a worked solution must end with a line '#### N', not with {_quote(last[-40:])}")
    return number


def _read_marker(completion: str) -> tuple[str | None, str]:
    """Return the number of a well-formed completion and "", or None and what is wrong with it."""
    text = completion.strip(_BLANKS)
    # When markers are counted, every line separator of Unicode ends a line, so that no marker can be hidden.
    markers = [line for line in text.splitlines() if "####" in line and _MARKER_LINE.match(line)]
    if not any(line.startswith("####") for line in markers):
        return None, "no marker: no line starts with ####"
    if len(markers) > 1:
        return None, f"two markers: {len(markers)} lines start with ####"
    # The answer itself, however, must be set apart by a real new line.
    last = text.rpartition("\n")[2].rpartition("\r")[2]
    if last != markers[0]:
        return None, f"text after marker: {_quote(last)}"
    number = canonical_number(last[4:])
    if number is None:
        return None, f"not one number: {_quote(last[4:])}"
    if not _REASONING.search(text, 0, len(text) - len(last)):
        return None, "no reasoning: nothing before the marker line"
    if len(_first_turn(text)) < len(text):
        return None, "follow-up question: the marker line is not in the first turn"
    return number, ""


def _first_turn(text: str) -> str:
    """Return the text up to the first question or turn that the model invented after its answer."""
    if cut := _TURN.search(text):
        text = text[: cut.start()]
    if ("<" in text or "[" in text) and (cut := _ROLE.search(text, 1)):
        text = text[: cut.start()]
    return text


def _last_number(completion: str) -> str | None:
    """Return the last number of the first turn in lowest form, or None when there is none that can be read."""
    text = _first_turn(completion.strip())
    if not text.isascii():
        text = _INVISIBLE.sub("", text)
    if not text.isascii() or "\\" in text or "{," in text:
        text = _GROUPING.sub(",", text)
    found = _LAST_START.match(text)
    if not found:
        return None
    start = found.end() - 1
    token = _TOKEN.match(text[start : start + 2 * _MAX_LENGTH])
    before = _PREFIX.search(text, max(0, start - 5), start)
    assert token and before  # a digit stands at start, and every part of the prefix may be absent
    sign = "-" if before["sign"] or before["inner"] else ""
    return canonical_number(sign + (before["point"] or "") + _ON_THE_HOUR.sub("", token[0]))


def _quote(text: str) -> str:
    """Return the start of a text as ASCII, so that a table cell can show it whatever it holds."""
    return ascii(text.strip(_BLANKS)[:40])
