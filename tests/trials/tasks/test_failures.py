"""Of several errors, that of the folder's own code is shown."""

from pathlib import Path

from trials.tasks.failures import inside, told


def caught(call):
    try:
        call()
    except Exception as error:  # noqa: BLE001  # the test looks at it
        return error
    raise AssertionError


def test_first_error_is_shown_where_a_second_call_hides_it(tmp_path):
    file = tmp_path / "metrics.py"
    file.write_text("def f(references, predictions):\n    return 1 + 'a'\n")
    space = {}
    exec(compile(file.read_text(), str(file), "exec"), space)

    def as_lm_eval():
        try:
            space["f"](references=[1], predictions=[2])
        except TypeError:
            space["f"]([1, 2])

    error = caught(as_lm_eval)
    assert "missing 1 required" in str(error)
    assert "unsupported operand" in str(told(error, tmp_path))
    assert [frame.lineno for frame in inside(told(error, tmp_path), tmp_path)] == [2]


def test_cause_is_shown_where_the_folder_has_no_part():
    def wrapped():
        try:
            raise KeyError("x")
        except KeyError as error:
            raise ValueError("failed") from error

    error = caught(wrapped)
    assert told(error, Path("/nowhere")) is error.__cause__
    assert told(error.__cause__, Path("/nowhere")) is error.__cause__
