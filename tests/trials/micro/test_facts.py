"""Computing facts: splits that share no combination of fact and wrong choices."""

from trials.micro.facts import cs_rows, cs_text


def test_splits_share_no_set_of_choices():
    train, test = ({(row["question"], *sorted(row["choices"])) for row in cs_rows(200, 1, test=test)} for test in (False, True))
    assert not train & test


def test_text_ends_with_the_answer():
    row = {"question": "Which part draws images?", "choices": ["disk", "renderer", "fan", "mouse"], "answer": 1}
    assert cs_text(row) == "Which part draws images?\nA. disk\nB. renderer\nC. fan\nD. mouse\nAnswer: renderer"
