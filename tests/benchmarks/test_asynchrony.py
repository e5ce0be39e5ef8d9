"""What the benchmark of A3C says of a worker's time."""

from asynchrony import PARTS, profile


def test_the_parts_of_a_profile_make_up_the_whole():
    before = {part: getattr(owner, name) for part, (owner, name) in PARTS.items()}
    _, _, *rows = profile("CartPole-v1", n_updates=20).splitlines()
    microseconds = {part: int(number) for _, part, number, _ in (map(str.strip, row.split("|")) for row in rows)}
    total = microseconds.pop("together")
    assert set(microseconds) == {*PARTS, "everything else"}
    assert all(number > 0 for number in microseconds.values())
    assert abs(sum(microseconds.values()) - total) <= len(rows) / 2  # rounding
    assert before == {part: getattr(owner, name) for part, (owner, name) in PARTS.items()}
