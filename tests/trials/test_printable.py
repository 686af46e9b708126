"""Foreign text is printed without control characters and passwords."""

import pytest

from trials.printable import one_line, printable, printable_setting


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202eb\u2066c\u200f", r"a\u202eb\u2066c\u200f"),
        ("a\rb\x7f\x08", r"a\rb\x7f\x08"),
        ("a\udcffb\u2028\ufeff", r"a\udcffb\u2028\ufeff"),
        ("[/b] [bold]x[/bold] :boom:", "[/b] [bold]x[/bold] :boom:"),
        ("naïve 日本 \u05d0 👩\u200d🔬\n\t-", "naïve 日本 \u05d0 👩\u200d🔬\n\t-"),
    ],
)
def test_control_characters_are_escaped(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:hunter2@host:8265: no answer", "http://me:***@host:8265: no answer"),
        ("postgresql://me:a@b/c:d@host/db", "postgresql://me:***@host/db"),
        ("postgresql://h/db?sslPassword=hunter2&x=1", "postgresql://h/db?sslPassword=***&x=1"),
        ("http://host:8265/a and b", "http://host:8265/a and b"),
        ("https://tok3n@host:8265", "https://***@host:8265"),
        ("https://host/x?p%61ssword=hunter2&y", "https://host/x?p%61ssword=***&y"),
        ("https://host/?access_token=abcd&api_key=efgh", "https://host/?access_token=***&api_key=***"),
        ("AWS_SECRET_ACCESS_KEY=abcd RAY_AUTH_TOKEN='efgh'", "AWS_SECRET_ACCESS_KEY=*** RAY_AUTH_TOKEN='***'"),
        ("Authorization: Bearer abc.def.ghi; hf_abcdefghijkl", "Authorization: Bearer ***; hf_***"),
        ("password = hunter2", "password = ***"),
        ("eos_token=</s> and https://github.com/a/b@main", "eos_token=</s> and https://github.com/a/b@main"),
    ],
)
def test_passwords_and_tokens_are_hidden(text, shown):
    assert printable(text) == shown


def test_one_line_has_no_line_end():
    assert one_line("a\n\n b\x0b") == r"a b\x0b"


@pytest.mark.parametrize("name", ["token", "hf_token", "api_key", "API-KEY", "access_key_id", "db_password", "client_secret"])
def test_settings_with_the_name_of_a_secret_are_hidden(name):
    assert printable_setting(name, "hunter2") == "***"


@pytest.mark.parametrize("name", ["tokenizer", "max_new_tokens", "add_bos_token", "pretrained"])
def test_other_settings_are_shown(name):
    assert printable_setting(name, "hunter2") == "hunter2"
