"""What may stand around an expression of two one-digit operands, so that it is a product and no part of something else.

Every question looks at a bounded piece of the text, or at white space that lies between two expressions and so is asked
about once: all of a text takes time in proportion to its length.
"""

import re

GAP = r"[ \t\u00a0\u1680\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff]"
"""a space within a line, however wide, as a class of regular expressions"""
_LOOK = 32
"""characters that are looked at before an expression"""
_OPENING = frozenset("([{=|<>\"'`,;:¿¡“‘«„（「『【，。：；、")
_CLOSING = frozenset(")]}=|<>\"'`,;:.?”’»…）」』】，。：；、？！")
_AFTER_A_NUMBER = frozenset(",:'\"`")
"""what begins an expression, but goes on a number that stands before it: 1,3*4 and 6:3*4 and 1'3*4"""
_FACTOR = r"*∗⋅·∙•×✕✖⨯/÷∕^%\\"
_OPERATOR_BEFORE = re.compile(
    rf"(?:[^\W_]|[)\]}}!%\"'`])"
    rf"(?:{GAP}*(?:[{re.escape(_FACTOR)}]|//)|{GAP}+\*\*|{GAP}*(?<=[\d)\]]|{GAP})[xX])\ufe0f?{GAP}+\Z"
)
_MARKS = rf"(?:(?:[(\[{{\"'`*_“‘«„$€£¥₹₩₽₺]|\\[a-z]{{1,12}}\{{){GAP}*){{1,4}}"
"""what a number, or an expression, is written in: brackets, quotation marks, emphasis, a currency, \\boxed{...}"""
_NUMBER_BEFORE = rf"(?<![\w.,*∗⋅·×✕✖/÷^+−-])(?<![*∗⋅·×✕✖xX/÷^+−-]{GAP})"
_CLAIM_BEFORE = re.compile(rf"{_NUMBER_BEFORE}([0-9]+){GAP}*={GAP}*(?:{_MARKS})?\Z")
_COMPARED_BEFORE = re.compile(rf"(?<![=<\"'#]){_NUMBER_BEFORE}[0-9]+{GAP}*(?:[=<>!]=|=<|[<>≠≈≟≡≅≃∼~≤≥⩽⩾≦≧＝]){GAP}*\Z")
_SUM_BEFORE = re.compile(rf"(?:\w{GAP}*\+|[\d)\]}}%]{GAP}*[-−–]){GAP}*\Z")
_DIMENSION_BEFORE = re.compile(
    rf"(?<![^\W_])(?:an?|sizes?|sized|dimensions?|measur(?:es|ed|ing))(?:{GAP}of)?:?{GAP}+\Z", re.IGNORECASE
)
_TAIL = (
    rf"{GAP}*+(?:[{re.escape(_FACTOR)}≠≈≟≡≅≃∼~≤≥⩽⩾≦≧＝]|!=|==|=[>=/~]|=<(?!<)|:=|[.,]\d|[¼-¾⅐-⅞]|[xX]{GAP}*+[\d($])"
    rf"|{GAP}(?:\d{{3}}(?!\d)|\d+/\d)"
)
_GOES_ON = re.compile(rf"{_TAIL}|{GAP}*+[<>]{GAP}?[\d=<>.+−-]")
_GOES_ON_BEHIND_A_PRODUCT = re.compile(rf"{_TAIL}|{GAP}*+(?:[-−–]{GAP}*+[\d.(]|\+)")
_DIGITS = re.compile(r"[0-9]++")
_NUMBER_AHEAD = re.compile(rf"[-+−–±~≈]?{GAP}?[$€£¥]?[.,]?\d")
_MARKED_NUMBER_AHEAD = re.compile(
    rf"(?P<sign>[-+−–±~≈]?){GAP}?{_MARKS}(?P<number>[-+−–±~≈]?[.,]?\d++)"
    rf"(?P<more>[.,]\d|{GAP}?[-+−–×·/÷^%]{GAP}?[\d(])?"
)
_PAIRS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "`": "`"}
_WORD_BEHIND = re.compile(rf"{GAP}++([^\W\d_]{{1,12}})")
_WORDS = frozenset(
    [
        *("and", "are", "as", "be", "because", "but", "can", "does", "equal", "equals", "give", "gives", "has", "have"),
        *("if", "is", "make", "makes", "minus", "must", "or", "plus", "should", "so", "than", "that", "then", "was"),
        *("were", "when", "which", "will", "would", "yield", "yields"),
    ]
)
"""English words behind which a bare expression is still a product; any other may be what a dimension measures"""


_ASKED_BEFORE = re.compile(rf"(?<!\w)(?:what(?:{GAP}is|['’]s)|calculate|compute|evaluate){GAP}\Z", re.IGNORECASE)
# no possessive group: until Python 3.11.5 one that is repeated within a group spoils that (python/cpython#101955)
_SAID_BEHIND = re.compile(
    rf"{GAP}(?:is|equals|makes|gives|yields){GAP}"
    rf"([-+−]?\d+(?:[.,]\d+)*)(?![.,]?\d)(?:\Z|[\r\n;!?)\"”.,]|:(?!\d))"
)


def begins_well(text: str, start: int) -> bool:
    """Whether what stands before an expression is no part of it: neither of its number, nor an operand."""
    if start == 0:
        return True
    touching = text[start - 1]
    if touching.isspace():
        return _OPERATOR_BEFORE.search(text[max(0, start - _LOOK) : start]) is None
    if touching not in _OPENING:
        return False
    return touching not in _AFTER_A_NUMBER or start < 2 or not text[start - 2].isnumeric()


def equals_another_number(text: str, start: int, product: int) -> bool:
    """Whether another number and an equals sign stand before an expression, as in 13 = 3*4."""
    claimed = _CLAIM_BEFORE.search(text[max(0, start - _LOOK) : start])
    return claimed is not None and claimed[1] != str(product)


def is_told_in_words(text: str, start: int, end: int, product: int) -> bool:
    """Whether an expression is asked for, or its product said, in a few words: What is 3 x 4? 3 x 4 is 12."""
    if is_a_dimension(text, start, end):
        return False
    said = _SAID_BEHIND.match(text, end)
    if said is not None:
        return said[1] == str(product)
    return _ASKED_BEFORE.search(text[max(0, start - _LOOK) : start]) is not None


def another_is_said(text: str, end: int, product: int) -> bool:
    """Whether a few words behind an expression say that it is another number, as in 3*4 is 13."""
    said = _SAID_BEHIND.match(text, end)
    return said is not None and said[1] != str(product)


def is_compared(text: str, start: int) -> bool:
    """Whether a number is compared with an expression, as in 13 == 3*4 and 13 > 3*4."""
    return _COMPARED_BEFORE.search(text[max(0, start - _LOOK) : start]) is not None


def end_of_product(text: str, place: int, product: int) -> int | None:
    """Where the product ends that is plainly stated behind an equals sign; None where none is."""
    digits = _DIGITS.match(text, place)
    right = digits is not None and digits[0] == str(product) and product_ends_well(text, digits.end())
    return digits.end() if digits is not None and right else None


def states_another_number(text: str, place: int, product: int) -> bool:
    """Whether another number than the product, or more than it, is stated behind an equals sign: 13, 12.5, (13)."""
    if _NUMBER_AHEAD.match(text, place) is not None:
        return end_of_product(text, place, product) is None
    marked = _MARKED_NUMBER_AHEAD.match(text, place)
    return marked is not None and (marked["sign"], marked["number"], marked["more"]) != ("", str(product), None)


def stands_in_a_pair(text: str, start: int, end: int) -> bool:
    """Whether an expression stands in brackets or quotation marks alone, and nothing is done with these."""
    closing = _PAIRS.get(text[start - 1]) if start else None
    return closing == text[end : end + 1] and begins_well(text, start - 1) and not ends_a_sum(text, start - 1)


def ends_a_sum(text: str, start: int) -> bool:
    """Whether something is added before an expression, so that an equals sign behind it is not about it alone."""
    return _SUM_BEFORE.search(text[max(0, start - _LOOK) : start]) is not None


def is_a_dimension(text: str, start: int, end: int) -> bool:
    """Whether a bare expression may be the size of something: a 3 × 4 ..., size 3 × 4, 3 × 4 board."""
    if _DIMENSION_BEFORE.search(text[max(0, start - _LOOK) : start]) is not None:
        return True
    word = _WORD_BEHIND.match(text, end)
    return word is not None and word[1].lower() not in _WORDS


def ends_well(text: str, start: int, end: int) -> bool:
    """Whether what follows a bare expression is no part of it."""
    if not _touches_well(text, end) or _GOES_ON.match(text, end) is not None:
        return False
    quote = text[end : end + 1]
    # 3*4" is a size in inches, unless "3*4" is a quotation
    return quote not in tuple("\"'`") or (start > 0 and text[start - 1] == quote)


def product_ends_well(text: str, end: int) -> bool:
    """Whether what follows the product of an expression is no part of it."""
    if text[end : end + 1] == "!" and text[end + 1 : end + 2] != "=":  # 3*4=12! is no factorial: that would be wrong
        return True
    return _touches_well(text, end) and _GOES_ON_BEHIND_A_PRODUCT.match(text, end) is None


def _touches_well(text: str, end: int) -> bool:
    if end == len(text) or text[end].isspace():
        return True
    touching, behind = text[end], text[end + 1 : end + 2]
    if touching == ".":
        return not behind.isalnum()
    if touching in ",:'":
        return not behind.isnumeric()
    return touching in _CLOSING
