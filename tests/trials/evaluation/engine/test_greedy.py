"""Rows leave the batch as they end, and others take their places."""

from trials.evaluation.engine import greedy


def test_rows_leave_when_they_end_and_others_take_their_places(micro, monkeypatch):
    passes = []
    forward = micro.model.forward
    monkeypatch.setattr(micro.model, "forward", lambda ids, **named: passes.append(tuple(ids.shape)) or forward(ids, **named))
    rows = [greedy.Row([5 + i, 9, 11]) for i in range(6)]
    wanted = {5: 2, 6: 9, 7: 3, 8: 1, 9: 4, 10: 5}  # tokens, by the prompt's first
    lengths = {}

    def ends(tokens: list[int]) -> bool:
        row = next(row for row in rows if row.generated is tokens)
        lengths[row.prompt[0]] = len(tokens)
        return len(tokens) == wanted[row.prompt[0]]

    greedy.greedy(micro.model, rows, 7, 2, ends)
    assert lengths == {**wanted, 6: 7}
    assert [row.stopped for row in rows] == [True, False, True, True, True, True]
    steps = [shape for shape in passes if shape[1] == 1]
    assert sum(count for count, _ in steps) == sum(lengths.values()) - len(rows)  # nothing is run for a row that has ended
