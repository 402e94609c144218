"""Which products of a text are found, and what looks like one and is none."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.domain_tokens.expressions import Expression, WrongProduct, find_expressions
from data_tools.domain_tokens.multiplication import PAIRS, Mode, multiplication_token, multiplication_tokens

SIGNS = "*∗⋅·×✕✖xX"


def marked(text: str, mode: Mode) -> str:
    """The text with the expressions that count in brackets."""
    result, position = "", 0
    for found in find_expressions(text, mode):
        if isinstance(found, Expression):
            result += f"{text[position : found.start]}[{text[found.start : found.end]}]"
            position = found.end
    return result + text[position:]


def wrong(text: str, mode: Mode = "weak") -> int:
    return sum(isinstance(found, WrongProduct) for found in find_expressions(text, mode))


def test_one_token_serves_both_orders() -> None:
    assert len(multiplication_tokens()) == len(set(multiplication_tokens())) == len(PAIRS) == 45
    assert (multiplication_tokens()[0], multiplication_tokens()[-1]) == ("<MUL_1_1_1>", "<MUL_9_9_81>")
    assert multiplication_token(4, 3) == multiplication_token(3, 4) == "<MUL_3_4_12>"
    assert [found.token for found in find_expressions("4*3, 3*4", "weak") if isinstance(found, Expression)] == [
        "<MUL_3_4_12>"
    ] * 2


@pytest.mark.parametrize(
    "text",
    [
        # part of a longer number
        *("106*9", "1.6*9", ".6*9", "6*9.5", "6*90", "1,3*4", "3*4,5", "3*4.5", "1'3*4", "3 * 4 000", "3*4 1/2"),
        *("3*4½", "12 000*3", "3*4²", "3*4%", "0x12", "x2", "0*4", "3*0", "10*3", "5*2.00", "3*4\u20e3"),
        # digits that are not ASCII, before, within and behind
        *("٣*4", "3*٤", "٣3*4", "3*4٣", "３*4", "3*4３", "²3*4"),
        # signs, operators, currencies and letters that touch
        *("-3*4", "−3*4", "+3*4", "5-3*4", "5+3*4", "$3*4", "€3*4", "3*4€", "#3*4", "/3*4", "3*4/2", "3*4-inch"),
        *("3*4-5", "a3*4", "3*4a", "_3*4_", "é3*4", "3*4é", "数3*4", "3*4!", "3*4°", "3*4(5)", ")3*4", "√3*4", "3*4'"),
        # chains
        *("3*4*5", "3x4x5", "3 x 4 x 5", "3 * 4 * 5", "3×4×5", "2 * 3 x 4", "3*4 x 5", "5 x 3*4", "6 / 3 * 4", "6/3*4"),
        *("6 ÷ 3 × 4", "2 ^ 3*4", "3*4 ^ 2", "3**4", "3***4", "3*4**", "3*4 % 5", "3*4 · 5", "2 x 3 x 4 = 24"),
        *("2 ** 3*4", "7 // 3*4", "(2) ** 3*4 = 12", "x // 3 * 4"),
        # dimensions
        *("2 x 4 board", "2x4", "2 x 4", "a 2 x 4", "4x4 matrix", "4X4", "3 × 4 matrix", "a 3 × 4 grid", "3×4 cm"),
        *("size 3 × 4", "size of 3 × 4.", "dimensions: 3 × 4", 'a photo, 3×4"', "3×4-inch", "measures 3 ✕ 4"),
        *("3 ✖ 4 m", "a 3 × 4."),
        # times, dates, ratios, versions
        *("6:3*4", "3*4:5", "2024-3*4", "2024/3*4", "v1.3*4"),
        # a middle dot may be a decimal point, a bullet separates
        *("3·4", "3 · 4 mg", "3•4", "3 • 4", "3∙4"),
        # spaces
        *("3\n*4", "3*\n4", "3 \n* 4", "3* 4", "3 *4", "3  *  4", "3\t*\t4", "3 *\u00a04"),
        # comparisons and other equals signs
        *("3 * 4 != 12", "3*4 ≠ 12", "3*4 == 12", "3*4 ≈ 12", "3*4 =< 12", "3*4 => 12", "3*4 < 11", "3*4>13"),
        *("3*4 ≥ 13", "3*4 ≤ 11", "3*4=~13", "12 == 3*4", "13 > 3*4", "13 ≠ 3*4", "13 <= 3*4", "11 < 3*4"),
        *("3*4 := 1", "3*4 ＝ 13", "3*4 =/= 12", "3 x 4 = twelve", "3 x 4 = n", "13 = 3*4", "13 = 3*4 = 12"),
        # another product, or more than the product
        *("3*4=13", "3*4=12.5", "3*4=120", "3*4 = 12,000", "3*4 = 12 000", "3*4=012", "3*4=1", "3*4 = -12"),
        *("3*4 = $12", "3*4  =  13", "3*4 = 12 + 1", "3*4 = 12-1", "3*4=12*5", "3*4=12 x 5", "3*4=12x", "3*4=12²"),
        *("3x4=13", "3*4=١٢", "3*4=12%", "3*4=12^2", "3*4 = 12/5", "3*4 = 12 ÷ 3", "3*4 = ≈12", "3*4=12!=13"),
        *("3*4 = .12", "3*4 = 12:05"),
        # the same with one side in brackets, quotation marks, emphasis or a currency
        *("(3*4) = 13", "(3*4) = 12.5", "{3*4} = (13)", '"3*4" = 13', "`3*4`=13", "13 = (3*4)", "3*4 = (13)"),
        *("3*4 = -(12)",),
        *("3*4 = **13**", "3*4 = __13__", "3*4 = \\boxed{13}", '3*4 = "13"', "3*4 = (12 + 1)", "3*4 = **12.5**"),
        *("3*4 = € 13", "3*4 = ₹13", "3*4 = (-12)", "3*4 = (3 + 9)"),
        # wide spaces are spaces too
        *("3*4\u2003* 5", "5 *\u20023*4", "3*4 =\u200313", "3*4 =\u200b13", "13\u2007=\u20073*4", "3*4\u205f/ 2"),
        *("5\u2003x 3*4",),
        # operands that end with a sign
        *("2! * 3*4", '"-" * 3*4', "'-' * 3*4=12", "x! / 3*4"),
        # sizes in questions, and what words say of x
        *("3*4 is 13", "3 × 4 equals 13", "3 * 4 makes 0", "3*4 is 12.5", "3*4 is -12", "3*4 is 12,000."),
        *("3 x 4 is 13", "3 x 4 is 12.5", "3 x 4 is 120", "2 x 4 is 8 feet", "A 3 x 4 is 12", "What is a 2 x 4?"),
        *("What is 2 x 4 lumber?", "what is 3 x 4 x 5", "what is 3 x 45", "somewhat is 3 · 4 mg", "3·4 is 3.4"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["weak", "strict"])
def test_what_stays_text(text: str, mode: Mode) -> None:
    for around in ("{}", "It says {}, so", "({})\n"):
        assert "[" not in marked(around.format(text), mode), around


@pytest.mark.parametrize(
    ("weak", "strict"),
    [
        ("[3*4]", "3*4"),
        ("**Step 1** [3*4 = 12]; // [3*4]", "**Step 1** [3*4 = 12]; // 3*4"),
        ("[4*3] [3 * 4]; [9∗9] and [3 ⋅ 4].", "4*3 3 * 4; 9∗9 and 3 ⋅ 4."),
        ("is [3*4] now, ([3*4]) or \"[3*4]\"?", "is 3*4 now, (3*4) or \"3*4\"?"),
        ("[3 × 4] is [3×4], [3 ✕ 4]\n[3 ✖\ufe0f 4]", "3 × 4 is 3×4, 3 ✕ 4\n3 ✖\ufe0f 4"),
        ("[3*4 = 12]", "[3*4 = 12]"),
        ("[3*4=12], [3 × 4 =12]; [3 x 4 = 12] boards.", "[3*4=12], [3 × 4 =12]; [3 x 4 = 12] boards."),
        ("[3X4=12]!", "[3X4=12]!"),
        ("[3·4=12] cm", "[3·4=12] cm"),
        ("[4 × 4 = 16] cells", "[4 × 4 = 16] cells"),
        ("[3*4\t=  12]\n", "[3*4\t=  12]\n"),
        ("[3*4=12]=[2*6]", "[3*4=12]=2*6"),
        ("[3*4=12]. [3*4=12] - easy", "[3*4=12]. [3*4=12] - easy"),
        ("[3 x 4] = ?\n[3 x 4] =\n[3X4]=__", "3 x 4 = ?\n3 x 4 =\n3X4=__"),
        ("[3 * 4] =\n13", "3 * 4 =\n13"),
        ("[3*4]=n, 12 = [3*4]", "3*4=n, 12 = 3*4"),
        ("5 + [3*4] = 17", "5 + 3*4 = 17"),
        ("5 - [3*4], [3*4] + 5", "5 - 3*4, 3*4 + 5"),
        ("* [3*4=12]\n- [2*3=6]\n1. [2*2]\n", "* [3*4=12]\n- [2*3=6]\n1. 2*2\n"),
        ("[3*4]=<<[3*4=12]>>12", "3*4=<<[3*4=12]>>12"),
        ("<td>[3*4]</td> `[3*4]` |[3*4]|", "<td>3*4</td> `3*4` |3*4|"),
        ("3*4 = [2*7], 3*4 = [2*6]", "3*4 = 2*7, 3*4 = 2*6"),
        ("What is [3 x 4]? [3 x 4] is 12.", "What is 3 x 4? 3 x 4 is 12."),
        ("what's [7x8]\nCalculate [3 x 4] and", "what's 7x8\nCalculate 3 x 4 and"),
        ("2 * ([3*4]) = 24, f([3*4]) = 13, f(4) = [3*4]", "2 * (3*4) = 24, f(3*4) = 13, f(4) = 3*4"),
        ("[3*4] is 12, 5 + [3*4] is 17, [3*4] is 12 more", "3*4 is 12, 5 + 3*4 is 17, 3*4 is 12 more"),
        ("([3*4]) = 12, [3*4] = (12) = **12**", "(3*4) = 12, 3*4 = (12) = **12**"),
        ("(2 + [3*4]) = 14, <td width=12>[3*4]</td>", "(2 + 3*4) = 14, <td width=12>3*4</td>"),
        ("2([3*4]), f([3*4]){[3*4]}", "2(3*4), f(3*4){3*4}"),
    ],
)  # fmt: skip
def test_what_counts(weak: str, strict: str) -> None:
    text = re.sub(r"\[([^]]*[1-9])\]", r"\1", weak)
    assert (marked(text, "weak"), marked(text, "strict")) == (weak, strict)


def test_equations_that_are_left_alone_are_counted() -> None:
    assert [wrong(text) for text in ("3*4=13", "13 = 3*4", "3*4 = 12.5, 2*2=5", "3*4=12", "3*4=?", "106*9=3")] == [
        1, 1, 2, 0, 0, 0
    ]  # fmt: skip
    assert wrong("4=6*15") == wrong("1 + 11 = 3*4") == wrong("5 + 3*4 = 17") == 0
    assert wrong("3*4=13", "strict") == 1


@given(st.text(alphabet=f"0123456789{SIGNS} .,=-+()\nab\u00a0٣½", max_size=60), st.sampled_from(["weak", "strict"]))
def test_whatever_is_found_is_a_product_that_nothing_touches(text: str, mode: Mode) -> None:
    end = 0
    for found in find_expressions(text, mode):
        if isinstance(found, WrongProduct):
            continue
        assert found.start >= end
        end = found.end
        assert re.fullmatch(rf"[1-9](\s?)[{SIGNS}]\1[1-9](\s*=\s*[0-9]+)?", text[found.start : end])
        operands = re.findall(r"\d+", text[found.start : end])
        low, high = sorted(map(int, operands[:2]))
        assert found.token == f"<MUL_{low}_{high}_{low * high}>"
        assert found.stated == (len(operands) == 3) and (not found.stated or int(operands[2]) == low * high)
        assert found.stated or mode == "weak"
        assert not text[: found.start][-1:].isalnum() and not text[end:][:1].isalnum()


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "3*4*",
            "3*4" + " " * 40,
            "1",
            " ",
            "3*4=",
            "3x",
            "3 x 4 = ",
            "= 3*4",
            "12 = ",
            "3*4,",
            "3*4 = (",
            "3*4 = **",
        ),
        *("(3*4) = ", "3 x 4 is ", "what is 3 x 4 ", "3*4 = \\boxed{", "3*4 = ( \t\u2003"),
    ],
)
def test_the_time_grows_with_the_length_alone(piece: str) -> None:
    def seconds(size: int) -> float:
        text = (piece * size)[:size]
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            for _found in find_expressions(text, "weak"):
                pass
            best = min(best, time.process_time() - started)
        return best

    assert seconds(16_000) < 20 * seconds(2_000) + 0.02  # 8 times as long; what is quadratic takes 64 times as much
