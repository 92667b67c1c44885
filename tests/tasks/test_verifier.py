"""A table of cases, each under the rule that decides it; then properties, real golds, speed, math_verify."""

import json
import os
import re
import time
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlvr_kit import UserError
from rlvr_kit.tasks import verifier
from rlvr_kit.tasks.verifier import canonical_number, gold_answer, verify

RULES = re.findall(r"^([\w-]+(?: [\w-]+)*)  +\S", str(verifier.__doc__).split("====\nrule")[1], re.MULTILINE)

# (format_ok, correct, lenient_correct)
RIGHT, WRONG, LENIENT, NOTHING = (1, 1, 1), (1, 0, 0), (0, 0, 1), (0, 0, 0)


def line(text: str) -> str:
    """A completion with sound reasoning that ends with this line."""
    return f"She sells 9 eggs at $2 each.\n{text}"


# rule, verdict, completion, why the case is here; the gold is 18 unless a fifth entry says otherwise.
CASES = [
    # --- the shape of a completion ---
    ("right number", RIGHT, line("#### 18"), "the format as asked for"),
    ("right number", RIGHT, "16 - 3 - 4 = 9\n9 * 2 = 18\n#### 18", "bare arithmetic is reasoning"),
    ("right number", RIGHT, "She has 16-3-4 = <<16-3-4=9>>9 eggs.\n#### 18", "GSM8K's own calculator marks"),
    ("right number", RIGHT, "Neuf oeufs à deux dollars.\n#### 18", "reasoning in another language"),
    ("right number", RIGHT, "鸭蛋每天九个，每个两美元。\n#### 18", "reasoning in another script"),
    ("right number", RIGHT, "It could be 17 or 19.\n#### 18", "numbers in the reasoning are free"),
    ("right number", RIGHT, "I must end with '#### N'.\n#### 18", "the format spoken of inside a line"),
    ("right number", RIGHT, "# Solution\n### Step 1\n9*2\n#### 18", "headings of other levels are text"),
    ("right number", RIGHT, "#tag\n#### 18", "a single # is text"),
    ("right number", RIGHT, line("#### 70000"), "five digits, no separator", "70000"),
    ("wrong number", WRONG, line("#### 17"), "off by one earns nothing for being near"),
    ("wrong number", WRONG, line("#### 95"), "near-miss credit: 95 for 100", "100"),
    ("wrong number", WRONG, line("#### 1"), "a prefix of the gold"),
    ("wrong number", WRONG, line("#### 180"), "the gold is a prefix of it"),
    ("wrong number", WRONG, line("#### 118"), "the gold is a suffix of it"),
    ("wrong number", WRONG, line("#### 18.0001"), "float tolerance would pay"),
    ("wrong number", WRONG, line("#### 17.9999999999999999"), "a float rounds this to 18"),
    ("wrong number", WRONG, line("#### 9007199254740993"), "2**53 + 1 as a float", "9007199254740992"),
    ("wrong number", WRONG, "The answer is 18.\n#### 17", "right in the text, wrong on the line"),
    ("wrong number", WRONG, "18 18 18 18\n#### 9", "the right number many times over"),
    ("no marker", NOTHING, "", "the empty string"),
    ("no marker", NOTHING, "   \n\t\n ", "only whitespace"),
    ("no marker", NOTHING, "I do not know.", "no number at all"),
    ("no marker", LENIENT, "She makes 18 dollars.", "right but unmarked"),
    ("no marker", LENIENT, line("### 18"), "three marks"),
    ("no marker", LENIENT, line("##### 18"), "five marks"),
    ("no marker", LENIENT, line("######## 18"), "eight marks are not two markers"),
    ("no marker", LENIENT, line(" #### 18"), "a line that starts with a space starts with no mark"),
    ("no marker", LENIENT, line("\t#### 18"), "nor one that starts with a tab"),
    ("no marker", LENIENT, line("**#### 18**"), "bold around the line"),
    ("no marker", LENIENT, line("> #### 18"), "a quotation"),
    ("no marker", LENIENT, line("- #### 18"), "a list item"),
    ("no marker", LENIENT, line("`#### 18`"), "code"),
    ("no marker", LENIENT, line("Answer: #### 18"), "the marker inside a line"),
    ("no marker", LENIENT, "She makes 18 dollars. #### 18", "the marker at the end of the reasoning"),
    ("no marker", LENIENT, line("# # # # 18"), "marks with spaces"),
    ("no marker", LENIENT, line("＃＃＃＃ 18"), "fullwidth marks"),
    ("no marker", LENIENT, line("\u200b#### 18"), "a zero-width space before the marker"),
    ("no marker", LENIENT, line("Final Answer: 18"), "another tutorial's format"),
    ("no marker", LENIENT, line("<answer>18</answer>"), "a tag format"),
    ("no marker", LENIENT, line(r"\boxed{18}"), "MATH's format"),
    ("no marker", LENIENT, line("A: 18"), "GSM8K's first format"),
    ("two markers", LENIENT, line("#### 17\n#### 18"), "the right one last"),
    ("two markers", NOTHING, line("#### 18\n#### 17"), "the right one first"),
    ("two markers", LENIENT, line("#### 18\n#### 18"), "the same one twice"),
    ("two markers", LENIENT, "#### Step 1\n9 * 2\n#### 18", "a heading of the fourth level is a marker line"),
    ("two markers", LENIENT, line("####\n#### 18"), "an empty one counts"),
    ("two markers", LENIENT, line(" #### 17\n#### 18"), "an indented one counts"),
    ("two markers", LENIENT, line("**#### 17**\n#### 18"), "one in bold counts"),
    ("two markers", LENIENT, line("\u200b#### 17\n#### 18"), "one behind a zero-width space counts"),
    ("two markers", LENIENT, line("#### 17\u2028#### 18"), "a Unicode line separator does not hide one"),
    ("two markers", LENIENT, line("#### 17\x0b#### 18"), "nor a vertical tab"),
    ("two markers", LENIENT, line("#### 17\r#### 18"), "nor a bare carriage return"),
    ("two markers", LENIENT, "".join(f"#### {n}\n" for n in range(19)), "counting up to the answer"),
    ("text after marker", NOTHING, line("#### 18\nShe had 16 eggs."), "a further sentence"),
    ("text after marker", LENIENT, line("#### 18\nDone."), "a word"),
    ("text after marker", LENIENT, line("#### 18\n\n\n."), "a full stop, much later"),
    ("text after marker", LENIENT, line("#### 18\n```"), "the end of a code block"),
    ("text after marker", LENIENT, line("#### 18\n---"), "a rule"),
    ("text after marker", LENIENT, line("#### 18\n\u200b"), "an invisible character is text"),
    ("text after marker", LENIENT, line("#### 18\n\x00"), "so is NUL"),
    ("text after marker", LENIENT, line("####\n18"), "the number on the next line"),
    ("text after marker", NOTHING, line("#### 18\nor 19"), "a second thought"),
    ("text after marker", LENIENT, "The sum.\u2028#### 18", "only a real new line sets the answer apart"),
    ("no reasoning", LENIENT, "#### 18", "the answer alone"),
    ("no reasoning", LENIENT, "\n\n  \n#### 18", "blank lines"),
    ("no reasoning", LENIENT, "...\n#### 18", "dots"),
    ("no reasoning", LENIENT, "---\n\n***\n#### 18", "rules"),
    ("no reasoning", LENIENT, "= + - ( ) $ %\n#### 18", "signs without anything to reckon with"),
    ("no reasoning", LENIENT, "____\n#### 18", "underscores are no letters"),
    ("no reasoning", LENIENT, "\u200b\ufeff\n#### 18", "zero-width characters"),
    ("no reasoning", LENIENT, "\u3164\uffa0\n#### 18", "Hangul fillers, letters that show as blanks"),
    ("no reasoning", LENIENT, "🦆🥚\n#### 18", "pictures"),
    # --- the number on the line ---
    ("not one number", NOTHING, line("#### 18 or 19"), "two candidates"),
    ("not one number", LENIENT, line("#### 17 or 18"), "two candidates, the right one last"),
    ("not one number", NOTHING, line("#### 18 or 19 or 20"), "three candidates"),
    ("not one number", NOTHING, line("#### 18, 19"), "a list"),
    ("not one number", NOTHING, line("#### 18 19"), "two numbers"),
    ("not one number", NOTHING, line("#### 18 #### 19"), "two markers in one line"),
    ("not one number", LENIENT, line("#### 18 dollars"), "a unit"),
    ("not one number", LENIENT, line("#### 18kg"), "a unit right after"),
    ("not one number", LENIENT, line("#### €18"), "another currency"),
    ("not one number", LENIENT, line("#### 18 USD"), "a currency code"),
    ("not one number", LENIENT, line("#### Answer: 18"), "a word before"),
    ("not one number", LENIENT, line("#### x = 18"), "an equation"),
    ("not one number", LENIENT, line("#### = 18"), "an equals sign"),
    ("not one number", LENIENT, line("#### **18**"), "bold"),
    ("not one number", LENIENT, line(r"#### \boxed{18}"), "LaTeX"),
    ("not one number", LENIENT, line("#### $18$"), "LaTeX's dollars"),
    ("not one number", LENIENT, line("#### (18)"), "brackets"),
    ("not one number", LENIENT, line('#### "18"'), "quotes"),
    ("not one number", LENIENT, line("#### 18!"), "an exclamation mark, or a factorial"),
    ("not one number", LENIENT, line("#### 18?"), "a question"),
    ("not one number", LENIENT, line("#### ~18"), "about 18"),
    ("not one number", LENIENT, line("#### 18 (dollars)"), "a remark"),
    ("not one number", LENIENT, line("#### 18<|im_end|>"), "a special token left in the text"),
    ("not one number", NOTHING, line("#### N"), "the instruction's placeholder"),
    ("not one number", NOTHING, line("####"), "an empty marker", "5"),
    ("not one number", NOTHING, line("#### eighteen"), "a word is no number"),
    ("not one number", NOTHING, line("#### $"), "a dollar alone"),
    ("not one number", NOTHING, line("#### -"), "a sign alone"),
    ("not one number", NOTHING, line("#### ."), "a period alone"),
    ("not one number", NOTHING, line("#### ½"), "a fraction in one character", "0.5"),
    ("not one number", NOTHING, line("#### XVIII"), "Roman"),
    ("plain decimal", RIGHT, line("#### 18.0"), "a trailing zero"),
    ("plain decimal", RIGHT, line("#### 18.000000000000"), "many of them"),
    ("plain decimal", RIGHT, line("#### 018"), "a leading zero"),
    ("plain decimal", RIGHT, line("#### 0.5"), "a decimal gold", "0.5"),
    ("plain decimal", RIGHT, line("#### .5"), "without its zero", "0.5"),
    ("plain decimal", RIGHT, line("#### 0.50"), "dollars and cents", "0.5"),
    ("plain decimal", RIGHT, line("#### 0"), "zero", "0"),
    ("plain decimal", NOTHING, line("#### 1.8.0"), "two points"),
    ("plain decimal", NOTHING, line("#### 1.8e1"), "scientific notation"),
    ("plain decimal", NOTHING, line("#### 1e3"), "scientific notation of a round number", "1000"),
    ("plain decimal", NOTHING, line("#### 1E3"), "in capitals", "1000"),
    ("plain decimal", NOTHING, line("#### inf"), "a float by name"),
    ("plain decimal", NOTHING, line("#### nan"), "equal to nothing, not even itself"),
    ("plain decimal", NOTHING, line("#### 0x12"), "hexadecimal"),
    ("plain decimal", NOTHING, line("#### 0b10010"), "binary"),
    ("plain decimal", NOTHING, line("#### １８"), "fullwidth digits"),
    ("plain decimal", NOTHING, line("#### ١٨"), "Arabic digits, which int() reads"),
    ("plain decimal", NOTHING, line("#### १८"), "Devanagari digits"),
    ("plain decimal", NOTHING, line("#### ¹⁸"), "superscripts"),
    ("plain decimal", NOTHING, line("#### ①⑧"), "circled digits"),
    ("plain decimal", NOTHING, line("#### 𝟏𝟖"), "mathematical bold digits"),
    ("separators", RIGHT, line("#### 1,080"), "the case that a public tutorial crashes on", "1080"),
    ("separators", RIGHT, line("#### 1080"), "none", "1080"),
    ("separators", RIGHT, line("#### 109,200,000"), "the largest gold of GSM8K with commas", "109200000"),
    ("separators", RIGHT, line("#### 1,080.00"), "with cents", "1080"),
    ("separators", RIGHT, line("#### 1,080"), "a gold that has them", "1,080"),
    ("separators", NOTHING, line("#### 1,2,3"), "a list of digits", "123"),
    ("separators", NOTHING, line("#### 12,34"), "in the wrong place", "1234"),
    ("separators", NOTHING, line("#### 1,0800"), "four digits behind one", "10800"),
    ("separators", NOTHING, line("#### 1080,000"), "four digits before one", "1080000"),
    ("separators", LENIENT, line("#### ,080"), "nothing before one", "80"),
    ("separators", LENIENT, line("#### 18,"), "one at the end"),
    ("separators", NOTHING, line("#### 1,,080"), "two in a row", "1080"),
    ("separators", NOTHING, line("#### 0,018"), "a decimal comma, most likely"),
    ("separators", NOTHING, line("#### 18,0"), "a decimal comma"),
    ("separators", NOTHING, line("#### 1.080,00"), "European style", "1080"),
    ("separators", WRONG, line("#### 1.080"), "a point is a decimal point", "1080"),
    ("separators", NOTHING, line("#### 1 080"), "a space makes two numbers", "1080"),
    ("separators", LENIENT, line("#### 1\u202f080"), "a narrow no-break space: leniently read", "1080"),
    ("separators", LENIENT, line("#### 1\u2009080"), "a thin space: leniently read", "1080"),
    ("separators", NOTHING, line("#### 1_080"), "Python's int() would read it", "1080"),
    ("separators", NOTHING, line("#### 1'080"), "Swiss style", "1080"),
    ("separators", NOTHING, line("#### 1，080"), "a fullwidth comma", "1080"),
    ("sign", RIGHT, line("#### -5"), "minus", "-5"),
    ("sign", RIGHT, line("#### \u22125"), "the Unicode minus", "-5"),
    ("sign", RIGHT, line("#### –5"), "an en dash typed for a minus", "-5"),
    ("sign", RIGHT, line("#### -$5"), "a debt", "-5"),
    ("sign", RIGHT, line("#### $-5"), "a debt, the other way round", "-5"),
    ("sign", RIGHT, line("#### +5"), "plus", "5"),
    ("sign", RIGHT, line("#### -0"), "minus nothing", "0"),
    ("sign", RIGHT, line("#### 0"), "a gold of minus nothing", "-0.0"),
    ("sign", WRONG, line("#### -5"), "a public tutorial pays for this", "5"),
    ("sign", WRONG, line("#### \u22125"), "or strips the sign it does not know", "5"),
    ("sign", WRONG, line("#### –5"), "a dash is not decoration", "5"),
    ("sign", WRONG, line("#### 5"), "the sign left out", "-5"),
    ("sign", NOTHING, line("#### ±5"), "both signs", "-5"),
    ("sign", LENIENT, line("#### ±5"), "both signs, read without them: no reward", "5"),
    ("sign", LENIENT, line("#### --5"), "two signs", "5"),
    ("sign", LENIENT, line("#### - 5"), "a space behind it: a list item?", "5"),
    ("sign", LENIENT, line("#### —5"), "an em dash is punctuation", "5"),
    ("sign", LENIENT, line("#### (5)"), "an accountant's minus is not read", "5"),
    ("sign", NOTHING, line("#### -$-5"), "two signs around the dollar", "5"),
    ("dollar and percent", RIGHT, line("#### $18"), "a dollar"),
    ("dollar and percent", RIGHT, line("#### $ 18"), "with a space"),
    ("dollar and percent", RIGHT, line("#### $1,080.00"), "all of it", "1080"),
    ("dollar and percent", RIGHT, line("#### 18%"), "a percent sign"),
    ("dollar and percent", RIGHT, line("#### 18 %"), "with a space"),
    ("dollar and percent", WRONG, line("#### 18%"), "18 % is 18 here, never 0.18", "0.18"),
    ("dollar and percent", LENIENT, line("#### 18$"), "a dollar behind"),
    ("dollar and percent", LENIENT, line("#### $$18"), "two dollars"),
    ("dollar and percent", LENIENT, line("#### 18%%"), "two percent signs"),
    ("dollar and percent", LENIENT, line("#### %18"), "a percent sign before"),
    ("closing period", RIGHT, line("#### 18."), "a sentence's end"),
    ("closing period", RIGHT, line("#### 18.00."), "after decimals"),
    ("closing period", RIGHT, line("#### 18%."), "after percent"),
    ("closing period", LENIENT, line("#### 18.."), "two"),
    ("closing period", LENIENT, line("#### 18 ."), "behind a space"),
    ("closing period", LENIENT, line("#### 18。"), "another script's"),
    ("thirty digits", RIGHT, line("#### " + "7" * 30), "thirty", "7" * 30),
    ("thirty digits", NOTHING, line("#### " + "7" * 31), "thirty-one", "7" * 30),
    ("thirty digits", NOTHING, line("#### 18." + "0" * 29), "decimals count"),
    ("thirty digits", NOTHING, line("#### " + "0" * 29 + "18"), "leading zeros count"),
    ("thirty digits", NOTHING, line("#### " + "1" * 5000), "too long for Python's int()"),
    ("not an expression", NOTHING, line("#### 36/2"), "a fraction"),
    ("not an expression", NOTHING, line("#### 9*2"), "a product"),
    ("not an expression", NOTHING, line("#### 9×2"), "a product sign"),
    ("not an expression", NOTHING, line("#### 20-2"), "a difference"),
    ("not an expression", LENIENT, line("#### 9*2=18"), "worked out, but not one number"),
    ("not an expression", NOTHING, line("#### 2^4"), "a power", "16"),
    ("not an expression", NOTHING, line("#### 2**4"), "Python's power", "16"),
    ("not an expression", NOTHING, line("#### 9**9**9**9"), "a grader that evaluates would hang"),
    ("not an expression", NOTHING, line("#### 5:30"), "a time", "5.5"),
    ("not an expression", NOTHING, line("#### 1 1/2"), "a mixed number", "1.5"),
    ("not an expression", LENIENT, line("#### int(18)"), "code"),
    ("not an expression", NOTHING, line("#### __import__('os').getpid()"), "code that a grader could run"),
    ("not an expression", LENIENT, line("#### {{18}}"), "a template"),
    ("whitespace", RIGHT, line("####18"), "no space behind the marker"),
    ("whitespace", RIGHT, line("####     18"), "many"),
    ("whitespace", RIGHT, line("####\t18"), "a tab"),
    ("whitespace", RIGHT, line("####\u00a018"), "a no-break space"),
    ("whitespace", RIGHT, line("####\u200918"), "a thin space"),
    ("whitespace", RIGHT, line("#### 18   \t"), "at the end of the line"),
    ("whitespace", RIGHT, line("#### 18\n\n \n"), "blank lines at the end"),
    ("whitespace", RIGHT, "Nine eggs.\r\n#### 18\r\n", "Windows"),
    ("whitespace", RIGHT, "Nine eggs.\r#### 18\r", "old Macintosh"),
    ("whitespace", RIGHT, "\n\n  Nine eggs.\n\n\n#### 18", "blank lines before"),
    ("invisible characters", LENIENT, line("#### \u200b18"), "a zero-width space"),
    ("invisible characters", LENIENT, line("#### 1\u200b8"), "inside the number"),
    ("invisible characters", LENIENT, line("#### 18\ufeff"), "a byte order mark"),
    ("invisible characters", LENIENT, line("#### 1\u00ad8"), "a soft hyphen"),
    ("invisible characters", NOTHING, line("#### \u202e81"), "a right-to-left override shows 81 as 18"),
    ("invisible characters", LENIENT, line("#### \u206618\u2069"), "bidirectional isolates"),
    ("invisible characters", LENIENT, line("#### 18\x00"), "NUL"),
    ("invisible characters", NOTHING, line("#### 18\x1b[0m"), "a terminal's escape"),
    ("invisible characters", LENIENT, line("#### 18\ud800"), "a lone surrogate"),
    ("invisible characters", LENIENT, line("#### 18\u0301"), "a combining accent"),
    ("follow-up question", LENIENT, line("#### 18\n\nQuestion: 5 cats?\n#### 5"), "two markers all the same"),
    (
        "follow-up question",
        NOTHING,
        "It is 5.\nQuestion: What is 9*2?\n#### 18",
        "it answers its own question",
    ),
    (
        "follow-up question",
        NOTHING,
        "It is 5.\nUser: And 9*2?\nAssistant: So\n#### 18",
        "it plays both parts",
    ),
    ("follow-up question", NOTHING, "It is 5.<|im_end|>\n<|im_start|>x\n#### 18", "a turn's special tokens"),
    (
        "follow-up question",
        RIGHT,
        "Question: what does she make?\nAnswer: 9*2\n#### 18",
        "the question repeated",
    ),
    ("follow-up question", RIGHT, "<|im_start|>assistant\nNine eggs.\n#### 18", "one's own turn opened"),
    ("follow-up question", LENIENT, "It is 18.\n\nQ: 5 cats?\nA: 5", "short form"),
    ("follow-up question", LENIENT, "It is 18.\n\n**Question 2:** 5 cats?", "numbered and bold"),
    ("follow-up question", LENIENT, "It is 18.\nHuman: thanks, and 5 more?", "a chat in plain text"),
    ("follow-up question", LENIENT, "It is 18.[/INST] 5", "another model's role marker"),
    ("follow-up question", LENIENT, "It is 18.</s> 5", "an end-of-text token"),
    ("follow-up question", NOTHING, "It is 18. The question: 5?", "not at the start of a line", "18"),
    # --- the lenient reading ---
    ("last number", LENIENT, r"The answer is \boxed{18}.", "LaTeX box"),
    ("last number", LENIENT, r"So she makes $\boxed{\$18}$.", "an escaped dollar in it"),
    ("last number", LENIENT, "**18**", "bold"),
    ("last number", LENIENT, "= 18 dollars.", "an equation's end"),
    ("last number", LENIENT, "__18__", "bold with underscores"),
    ("last number", LENIENT, r"\[ 18 \text{ m}^2 \]", "a displayed formula"),
    ("last number", LENIENT, "She makes $18/day.", "a rate"),
    ("last number", LENIENT, "≈18", "about"),
    ("last number", LENIENT, "Rs.18", "a currency with a period"),
    ("last number", LENIENT, "Step 1: 9 eggs\nStep 2: 9*2 = 18\n\nI hope this helps!", "good manners"),
    ("last number", LENIENT, "She sells 9 eggs at $2 → $18", "an arrow"),
    ("last number", LENIENT, "She makes $18.00 every day.", "cents"),
    ("last number", LENIENT, "18% of them", "percent"),
    ("last number", LENIENT, "Total: 18", "a label"),
    ("last number", LENIENT, "She makes 18. That is what the market pays her.", "a sentence behind it"),
    ("last number", LENIENT, "9*2=18", "no spaces"),
    ("last number", LENIENT, "(18)", "brackets"),
    ("last number", LENIENT, "18kg", "a unit right after"),
    ("last number", LENIENT, "the 18th", "an ordinal"),
    ("last number", LENIENT, "17 or 18", "the last one counts: a metric, not a reward"),
    ("last number", LENIENT, "She makes $1,080.", "separators", "1080"),
    ("last number", LENIENT, r"\boxed{1{,}080}", "LaTeX's separator", "1080"),
    ("last number", LENIENT, r"\$1\,080", "LaTeX's thin space", "1080"),
    ("last number", LENIENT, "10\u202f000 metres", "French style", "10000"),
    ("last number", LENIENT, "It costs $.50", "no zero before the point", "0.5"),
    ("last number", LENIENT, "Wait... 18...", "dots around it"),
    ("last number", NOTHING, "She makes 18, from 9 eggs", "the last number is 9"),
    ("last number", NOTHING, "18 = 9 * 2", "an equation the other way round"),
    ("last number", NOTHING, "She makes ١٨, not 18, so ١٨.", "never past a number it cannot read"),
    ("joined digits", LENIENT, "They meet at 5:00 PM.", "a full hour", "5"),
    ("joined digits", NOTHING, "They meet at 5:30.", "another time", "30"),
    ("joined digits", NOTHING, "3/4 of it", "a fraction", "4"),
    ("joined digits", NOTHING, "10-15 eggs", "a range", "15"),
    ("joined digits", NOTHING, "by 12/25/2018", "a date", "2018"),
    ("joined digits", NOTHING, "on 2018-05-18", "a date in ISO form"),
    ("joined digits", NOTHING, "2x9", "a product", "9"),
    ("joined digits", NOTHING, "1.8e1 eggs", "scientific notation", "1"),
    ("joined digits", NOTHING, "2½ eggs", "a mixed number", "2"),
    ("joined digits", NOTHING, "10² eggs", "a power", "10"),
    ("joined digits", NOTHING, "1,2,3", "a list", "3"),
    ("joined digits", NOTHING, "version 1.8.18", "two points"),
    ("exponents and names", LENIENT, "It is 18 m^2", "a square metre"),
    ("exponents and names", LENIENT, "It is 18 m^{2}", "in LaTeX"),
    ("exponents and names", LENIENT, "It is 18 m²", "in Unicode"),
    ("exponents and names", LENIENT, "18 litres of CO2", "a formula"),
    ("exponents and names", LENIENT, "18 = x_1", "a subscript"),
    ("exponents and names", LENIENT, "18 on the A4", "a name"),
    ("minus or hyphen", LENIENT, "It is -5 degrees.", "a minus", "-5"),
    ("minus or hyphen", LENIENT, "It is \u22125 degrees.", "the Unicode minus", "-5"),
    ("minus or hyphen", LENIENT, "They lose -$5.", "before a dollar", "-5"),
    ("minus or hyphen", LENIENT, r"\boxed{-5}", "in a box", "-5"),
    ("minus or hyphen", LENIENT, "x=-5", "after an equals sign", "-5"),
    ("minus or hyphen", NOTHING, "It is -5 degrees.", "the sign counts", "5"),
    ("minus or hyphen", NOTHING, "23-5 eggs", "a difference that is not worked out", "-5"),
    ("minus or hyphen", LENIENT, "Answer-5", "a hyphen", "5"),
    ("minus or hyphen", LENIENT, "the answer --5", "a typewriter's dash", "5"),
    ("minus or hyphen", LENIENT, "the answer—5", "a dash", "5"),
    ("minus or hyphen", LENIENT, "- 5 eggs", "a list item", "5"),
    ("minus or hyphen", LENIENT, "=> 5, -> 5", "arrows", "5"),
    ("unreadable gold", WRONG, line("#### 18"), "nothing to compare with", ""),
    ("unreadable gold", WRONG, line("#### 18"), "a word", "eighteen"),
    ("unreadable gold", WRONG, line("#### 18"), "a worked solution must be read first", "9*2\n#### 18"),
    ("unreadable gold", NOTHING, line("#### inf"), "equal strings are not equal numbers", "inf"),
]

# The rules that a verdict's `why` can open with; the others are about numbers, and end in one of these.
DECIDE = RULES[: RULES.index("not one number") + 1] + ["follow-up question", "unreadable gold"]


@pytest.mark.parametrize(
    "rule, verdict, completion, reason, gold",
    [pytest.param(*case, *["18"][len(case) - 4 :], id=f"{case[0]}: {case[3]}") for case in CASES],
)
def test_case(rule, verdict, completion, reason, gold):
    found = verify(completion, gold)
    assert (found.format_ok, found.correct, found.lenient_correct) == tuple(map(bool, verdict)), found
    assert found.why.split(":")[0] in DECIDE
    if verdict in (RIGHT, WRONG) and found.why.split(":")[0] != "unreadable gold":
        assert found.why.startswith("right number" if verdict == RIGHT else "wrong number")


def test_every_rule_of_the_docstring_has_cases_and_every_case_a_rule():
    assert len(CASES) >= 150
    assert {case[0] for case in CASES} == set(RULES)
    assert len({case[2:4] for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    "rule", ["no marker", "two markers", "text after marker", "no reasoning", "not one number"]
)
def test_the_verdict_names_the_rule_that_decided(rule):
    for case in CASES:
        if case[0] == rule:
            assert verify(case[2], "18").why.startswith(rule), case


def test_what_a_verdict_shows_can_always_be_printed():
    for _, _, completion, *_ in CASES:
        assert verify(completion, completion).why.isascii()
        assert len(verify(completion, completion).why) < 300


# --- properties ---

digits = st.text("0123456789", min_size=1, max_size=20)
numbers = st.builds(
    lambda sign, whole, fraction: sign + whole + (f".{fraction}" if fraction else ""),
    st.sampled_from(["", "-"]), digits, st.text("0123456789", max_size=9),
)  # fmt: skip
prose = st.text(st.characters(codec="utf-8"), max_size=80).filter(lambda text: "####" not in text)
anything = st.text(st.characters(exclude_categories=()), max_size=60) | st.text(
    "#$%,.-+ 0189\n\r\t\v\u2028\u2212\u200b\ud800\x00eExQ:A<|>[/]{}\\^_½२", max_size=60
)


def dressed(number: str) -> list[str]:
    """The same number as people write it."""
    sign, bare = ("-", number[1:]) if number.startswith("-") else ("", number)
    whole, _, fraction = bare.partition(".")
    grouped = f"{int(whole):,}" + (f".{fraction}" if fraction else "")
    forms = [
        number,
        sign + grouped,
        f"{sign}${bare}",
        f"${sign}{grouped}",
        f"{number}%",
        number.replace("-", "−"),
    ]
    return [form + period for form in forms for period in ("", ".")]


@settings(deadline=None)  # the speed is tested below
@given(numbers, numbers, st.data())
def test_dress_and_reasoning_never_change_the_verdict(number, gold, data):
    plain = verify(f"So.\n#### {number}", gold)
    form = data.draw(st.sampled_from(dressed(number)))
    before = data.draw(prose)
    assume("\n" not in before or verifier._TURN.search(before) is None)
    assert verify(f"{before} So.\n#### {form}", gold) == plain
    assert plain.format_ok
    assert plain.correct == (Decimal(number) == Decimal(gold))


@settings(deadline=None)  # the speed is tested below
@given(numbers, numbers)
def test_a_wrong_number_is_never_correct(number, gold):
    assume(Decimal(number) != Decimal(gold))
    for form in dressed(number):
        verdict = verify(f"So.\n#### {form}", gold)
        assert verdict.format_ok and not verdict.correct and not verdict.lenient_correct


@settings(deadline=None)  # the speed is tested below
@given(anything, anything)
def test_any_text_gets_a_verdict_and_one_that_holds_together(completion, gold):
    for text in (completion, f"So.\n#### {completion}", f"{completion}\n#### 18"):
        verdict = verify(text, gold)
        assert verdict.correct <= verdict.format_ok
        assert verdict.correct <= verdict.lenient_correct
        assert verdict.extracted is None or canonical_number(verdict.extracted) == verdict.extracted
        assert verdict.format_ok == verify(text, "18").format_ok


@settings(deadline=None)  # the speed is tested below
@given(numbers)
def test_lowest_form_is_exact_and_stable(number):
    lowest = canonical_number(number)
    assert lowest is not None and Decimal(lowest) == Decimal(number)
    assert canonical_number(lowest) == lowest
    assert not (lowest.startswith("-") and Decimal(lowest) == 0)


# --- golds ---


@pytest.mark.parametrize(
    "answer, gold",
    [
        ("9*2=<<9*2=18>>18\n#### 18", "18"),
        ("x\n#### 1,080", "1080"),
        ("x\r\n#### -5\r\n", "-5"),
        ("#### $7.50", "7.5"),
    ],
)
def test_gold_answer(answer, gold):
    assert gold_answer(answer) == gold


@pytest.mark.parametrize(
    "answer", ["", "18", "#### eighteen", "#### 18\nThat is it.", "#### 17 or 18", "##### 18"]
)
def test_a_solution_without_an_answer_line_is_an_error_that_shows_its_end(answer):
    with pytest.raises(UserError, match="must end with a line '#### N'"):
        gold_answer(answer)


@pytest.mark.skipif(
    "RLVR_KIT_GSM8K" not in os.environ, reason="RLVR_KIT_GSM8K does not name a folder with GSM8K"
)
def test_every_real_gold_is_paid_in_full_and_its_neighbours_is_not():
    folder = Path(os.environ["RLVR_KIT_GSM8K"])
    answers = [
        json.loads(row)["answer"] for split in ("train", "test") for row in (folder / f"{split}.jsonl").open()
    ]
    golds = [gold_answer(answer) for answer in answers]
    assert len(golds) == 8792
    for answer, gold, neighbour in zip(answers, golds, golds[1:] + golds[:1], strict=True):
        assert verify(answer, gold).correct
        written = verify(f"I worked it out.\n#### {gold}", gold)
        assert written.correct and written.lenient_correct
        assert gold == neighbour or not verify(answer, neighbour).correct


# --- speed ---


def test_twenty_thousand_ordinary_completions_a_second():
    work = "She sells 16 - 3 - 4 = 9 eggs a day, for $2 each.\nThat makes 9 * 2 = $18 every day.\n" * 2
    ends = ["#### 18", "#### $18.00.", "The answer is 18 dollars.", "#### 18\n#### 18"]
    texts = [work + end for end in ends] * 250

    def seconds() -> float:
        start = time.process_time()
        for text in texts:
            verify(text, "18")
        return time.process_time() - start

    assert len(texts) / min(seconds() for _ in range(5)) >= 20_000


UNITS = ["1", "1,", "1-", "a1", "#", "$", ".", "1.", "{,}1", "\\,000", "<|a", "<|a|>", "²1", "१", "\ud800"]
UNITS += ["####\n", "#### 1\n", "\n", " ", "1 ", "\u2028", "\nQ", "\n#"]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("wrap", ["{}", "So.\n#### {}x", "{}\n#### 18"])
def test_a_million_hostile_characters_take_well_under_a_second(unit, wrap):
    text = wrap.format(unit * (1_000_000 // len(unit)))
    start = time.process_time()
    verify(text, "18")
    assert time.process_time() - start < 0.7


# --- math_verify ---

PLAIN = """
    18 18.0 18.00 018 18. 17 19 180 118 18.01 5 -5 \u22125 +5 -$5 $-5 -0 0 0.5 0.50 .5 $18 18% 36/2 9*2 1,080
    1080 $1,080.00 1.080 -1080 109,200,000 1,2,3 12,34 9007199254740993 eighteen""".split()  # noqa: SIM905
PLAIN += ["18 dollars", "17 or 18", "18 or 19", "1 080"]
GOLDS = ["18", "1080", "109200000", "-5", "5", "0.5", "0", "0.18", "9007199254740992", "123", "1234"]

# Where math_verify decides otherwise, and why we stay. It is made to recognise whatever mathematics equals
# the gold, as an evaluation of mixed answers wants; a reward must not pay for what was not asked for.
DIFFERENCES = {
    ("36/2", "18"): "it evaluates; we never do, for the sum is the policy's to do",
    ("9*2", "18"): "the same",
    ("18 dollars", "18"): "it looks for a number in the text; the line is to hold nothing else",
    ("17 or 18", "18"): "of two candidates it takes the last: hedging would pay",
    ("1 080", "1080"): "it joins two numbers",
    ("18%", "0.18"): "it divides by 100; GSM8K's golds mean the number before the sign",
    ("+5", "5"): "it reads nothing here; a person reads 5",
    ("\u22125", "-5"): "it does not know the Unicode minus",
    ("-$5", "-5"): "it does not know a sign before the dollar",
}


def test_math_verify_agrees_on_plain_numbers_with_these_exceptions():
    from math_verify import parse
    from math_verify import verify as equal

    golds = {gold: parse(gold, parsing_timeout=None) for gold in GOLDS}
    texts = {text: parse(text, parsing_timeout=None) for text in PLAIN}
    differ = {
        (text, gold)
        for text in PLAIN
        for gold in GOLDS
        if verify(f"So.\n#### {text}", gold).correct
        != bool(equal(golds[gold], texts[text], timeout_seconds=None))
    }
    assert differ == set(DIFFERENCES)


@pytest.mark.parametrize(
    "completion", ["Two nines.\n#### 18\x1f", "Two nines.\n####\x1f18", "Two nines.\n#### \x1f18"]
)
def test_an_invisible_character_that_python_counts_as_a_space_spoils_the_marker_line(completion: str) -> None:
    verdict = verify(completion, "18")
    assert not verdict.format_ok and not verdict.correct and "\\x1f" in verdict.why
