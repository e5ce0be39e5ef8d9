"""Equations as the project writes them, in plain characters, drawn as MathML: no JavaScript, no network, no images.

    A_t = δ_t + γλ·(1 − end_t)·A_{t+1}

Docstrings and pages set equations apart by indentation. Whatever is indented and is made of mathematics' own characters
is drawn: ``_x`` and ``_{…}`` are subscripts, ``^x``, ``^{…}``, ², ᵀ and the like superscripts, √(…) is a root, and a
name of several letters stands upright.
"""

import html
import re

MATHEMATICAL = re.compile(r"[Ͱ-Ͽ√∑∏Σ∇←≈≤≥‖·−½∂∈⊗ᵀ²]")
"""What tells an equation from a command or a line of Python."""
OTHERS = re.compile(r"[─│┌└\"`]")
"""What equations do not hold, but diagrams and code do."""
RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵀᵗᵏⁿᵐ", "0123456789+−Ttknm", strict=True))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+−", strict=True))
LETTER = rf"[^\W\d_½{''.join(RAISED)}{''.join(LOWERED)}]"
NAME = rf"{LETTER}[\u0304\u0302]?(?:{LETTER}|_(?={LETTER}{{2}}))*'*"
TOKEN = re.compile(rf"(?P<gap> {{2,}})|(?P<space> )|(?P<number>\d+(?:[.,]\d+)*)|(?P<name>{NAME})|(?P<other>.)")
WORDS = {"if", "else", "for", "where", "or", "of", "and", "with", "within", "is", "by", "as"}


def is_equation(text: str) -> bool:
    """Whether an indented block is an equation."""
    return bool(MATHEMATICAL.search(text)) and not OTHERS.search(text)


def to_mathml(text: str) -> str:
    """An equation of one or several lines as MathML, each line a row."""
    lines = [line.strip() for line in text.strip().splitlines()]
    rows = "".join(f"<mtr><mtd>{Reader(line).row()}</mtd></mtr>" for line in lines)
    return (
        f'<math display="block" aria-label="{html.escape(" ".join(lines))}">'
        f'<mtable columnalign="left" displaystyle="true">{rows}</mtable></math>'
    )


class Reader:
    """Reads a line from left to right.

    :param line: the line
    """

    def __init__(self, line: str) -> None:
        self.tokens = [(match.lastgroup or "", match.group()) for match in TOKEN.finditer(line)]
        self.position = 0

    def row(self, until: str = "") -> str:
        """What stands before a closing bracket, which is skipped, or the end of the line."""
        parts = []
        while self.position < len(self.tokens):
            if self.tokens[self.position][1] == until:
                self.position += 1
                break
            parts.append(self.scripted())
        return f"<mrow>{''.join(parts)}</mrow>"

    def scripted(self) -> str:
        """An atom with what is written below and above it."""
        base, below, above = self.atom(), "", ""
        while self.position < len(self.tokens):
            kind, text = self.tokens[self.position]
            if text in "_^" and kind == "other":
                self.position += 1
                below, above = (below + self.script(), above) if text == "_" else (below, above + self.script())
            elif text[0] in RAISED:
                above += self.run(RAISED)
            elif text[0] in LOWERED:
                below += self.run(LOWERED)
            else:
                break
        if below and above:
            return f"<msubsup>{base}<mrow>{below}</mrow><mrow>{above}</mrow></msubsup>"
        if below:
            return f"<msub>{base}<mrow>{below}</mrow></msub>"
        return f"<msup>{base}<mrow>{above}</mrow></msup>" if above else base

    def script(self) -> str:
        """What follows ``_`` or ``^``: a group in braces, or one atom."""
        if self.position < len(self.tokens) and self.tokens[self.position][1] == "{":
            self.position += 1
            return self.row("}")
        return self.atom() if self.position < len(self.tokens) else ""

    def run(self, table: dict[str, str]) -> str:
        """Raised or lowered characters in a row."""
        text = ""
        while self.position < len(self.tokens) and self.tokens[self.position][1][0] in table:
            text += "".join(table.get(character, character) for character in self.tokens[self.position][1])
            self.position += 1
        return f'<mi mathvariant="normal">{html.escape(text)}</mi>'

    def atom(self) -> str:
        """One number, name, root or sign."""
        kind, text = self.tokens[self.position]
        self.position += 1
        if kind == "gap":
            return '<mspace width="2em"/>'
        if kind == "space":  # it counts between names alone, as in log π; around signs MathML has its own
            around = [self.tokens[i][0] for i in (self.position - 2, self.position) if 0 <= i < len(self.tokens)]
            return '<mspace width="0.2em"/>' if around == ["name", "name"] else ""
        if kind == "number":
            return f"<mn>{text}</mn>"
        if kind == "name":
            if text in WORDS:
                return f"<mtext>\N{NO-BREAK SPACE}{text}\N{NO-BREAK SPACE}</mtext>"
            plain = text.rstrip("'")
            primes = "′" * (len(text) - len(plain))
            name = f"<mi>{html.escape(plain)}</mi>"
            return f"<msup>{name}<mo>{primes}</mo></msup>" if primes else name
        if text == "√" and self.position < len(self.tokens):
            if self.tokens[self.position][1] == "(":
                self.position += 1
                return f"<msqrt>{self.row(')')}</msqrt>"
            return f"<msqrt>{self.atom()}</msqrt>"
        if text == "½":
            return "<mfrac><mn>1</mn><mn>2</mn></mfrac>"
        return f'<mo stretchy="false">{html.escape(text)}</mo>'
