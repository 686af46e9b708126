"""Foreign text is printed without control characters and passwords."""

import pytest

from trials.printable import one_line, printable, printable_setting, secrets, without_secrets


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
        ('{"password": "hunter 2", "user": "me"}', '{"password": "***", "user": "me"}'),
        (r"{\"password\": \"hunter2\", \"user\"}", r"{\"password\": \"***\", \"user\"}"),
        ("{'api_key': 'ab\\'cd', 'token': 'efgh'}", "{'api_key': '***', 'token': '***'}"),
        ("X-Amz-Security-Token: FwoGZXIvYXdzE; x", "X-Amz-Security-Token: *** x"),
        ("Authorization: Basic dXNlcjpwYXNz, x", "Authorization: Basic ***, x"),
        ("{'Authorization': 'token abc'}", "{'Authorization': 'token ***'}"),
        ("login --token abcd1234 --hf-token=efgh -v", "login --token *** --hf-token=*** -v"),
        ("gho_1234567890 github_pat_11ABCDEFG xoxb-12345678", "gho_*** github_pat_*** xoxb-***"),
        ("sk-proj-abcdefgh1234 ASIAABCDEFGHIJKL", "sk-*** ASIA***"),
        ("passphrase: opensesame", "passphrase: ***"),
        ("password:\nnext line", "password:\nnext line"),
        (
            "--max-tokens 5 in basic settings of task-abcdefghijklmnopqrstu",
            "--max-tokens 5 in basic settings of task-abcdefghijklmnopqrstu",
        ),
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


def test_values_of_variables_with_secret_names_are_secret():
    environment = {"HF_TOKEN": "x" * 20, "AWS_SECRET_ACCESS_KEY": "y" * 30, "PGPASSWORD": "short", "PATH": "/usr/bin:/bin"}
    assert secrets(environment) == ["y" * 30, "x" * 20]


@pytest.mark.parametrize(
    "name",
    ["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "PRIVATE_KEY", "DB_PASS", "DB_PWD", "SMTP_PASSPHRASE", "GH_PAT", "key"],
)
def test_variable_that_ends_as_a_secret_does_is_one(name):
    assert secrets({name: "open sesame"}) == ["open sesame"]


def test_secret_may_begin_with_a_slash_and_a_place_is_none(tmp_path):
    (tmp_path / "key.json").touch()
    key = "/wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    environment = {
        "AWS_SECRET_ACCESS_KEY": key,
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json"),
        "DB_PASSWORD_FILE": "/run/secrets/db",
        "TOKEN_DIR": "/somewhere",
        "OLDPWD": "/home/somebody",
    }
    assert secrets(environment) == [key]


def test_values_are_hidden_beside_known_forms():
    assert without_secrets("401 for abcd1234efgh, password=x", ["abcd1234efgh"]) == "401 for ***, password=***"
