"""Secrets: which names hold one, and how their values are kept out of what is shown."""

from __future__ import annotations

import json

import pytest
from pydantic import SecretStr

from synapse_kernel.redaction import (
    Redactor,
    is_secret_name,
    may_hold_secret_names,
    redact,
    secrets_of_env,
)

SECRET = [
    "API_KEY",
    "apiKey",
    "key",
    "AWS_SECRET_ACCESS_KEY",
    "token",
    "HF_TOKEN",
    "password",
    "PASSWD",
    "passphrase",
    "credentials",
    "keypoint_key",
    "token_for_tokens",
]
HARMLESS = [
    "keypoints",
    "keypoint_count",
    "key_points",
    "keyframe",
    "keywords",
    "keyboard",
    "monkey",
    "tokens",
    "max_tokens",
    "tokenizer",
    "tokenise",
    "passes",
    "compass",
    "name",
    "",
]


@pytest.mark.parametrize("name", SECRET)
def test_names_that_hold_a_secret(name: str):
    assert is_secret_name(name)


@pytest.mark.parametrize("name", HARMLESS)
def test_names_that_merely_look_like_it(name: str):
    assert not is_secret_name(name)


def test_text_under_secret_names_is_masked_and_the_rest_stays():
    data = {"api_key": "hush", "name": "n", "keypoints": ["a"], "inner": {"token": "hush", "n": 1}}

    assert {
        "api_key": "***",
        "name": "n",
        "keypoints": ["a"],
        "inner": {"token": "***", "n": 1},
    } == redact(data)


def test_text_anywhere_under_a_secret_name_is_masked():
    data = {"credentials": {"user": "u", "parts": ["a", {"b": "c"}], "n": 5, "none": None}}

    assert {"credentials": {"user": "***", "parts": ["***", {"b": "***"}], "n": 5, "none": None}} == redact(
        data
    )


def test_numbers_under_secret_names_stay():
    assert {"token": 5, "key": True} == redact({"token": 5, "key": True})


def test_secret_types_are_masked_under_any_name():
    assert {"x": "***", "y": ["***"]} == redact({"x": SecretStr("hush"), "y": [SecretStr("hush")]})


def test_redacting_changes_nothing_of_what_is_given():
    data = {"inner": {"token": "hush"}}

    redact(data)

    assert {"inner": {"token": "hush"}} == data


@pytest.mark.parametrize(
    "data",
    [
        *({name: "x"} for name in SECRET),
        {"a": [{"b": {"Api-Token": "x"}}]},
        {'quoted "token" name': "x"},
        {"back\\slash_key\\": "x"},
        {"line\nbreak_token\n": "x"},
        {"schlüssel_key_ü": "x"},
    ],
    ids=str,
)
def test_encoded_data_with_a_secret_name_is_never_passed_over(data: object):
    for form in (
        json.dumps(data, separators=(",", ":")),
        json.dumps(data, separators=(",", ":"), ensure_ascii=False),
    ):
        assert may_hold_secret_names(form.encode())


@pytest.mark.parametrize(
    "data",
    [{}, {"a": 1}, {"name": "the key to all"}, {"name": ["token", "secret"]}, {"n": {"m": "password: x"}}],
    ids=str,
)
def test_encoded_data_without_a_secret_name_needs_no_closer_look(data: object):
    assert not may_hold_secret_names(json.dumps(data, separators=(",", ":")).encode())


# Known values.


def test_known_values_are_masked_wherever_they_stand():
    redactor = Redactor(["open-sesame"])

    assert "x***y ***" == redactor.text("xopen-sesamey open-sesame")
    assert b'{"a":"x***"}' == redactor.raw(b'{"a":"xopen-sesame"}')


@pytest.mark.parametrize(
    "secret", ['quo"te', "back\\slash", "new\nline", "ümlaut", "\u2603\U0001f600 snow", "a/b+c=="]
)
def test_known_values_are_masked_in_json_however_it_writes_them(secret: str):
    redactor = Redactor([secret])

    for ascii_only in (True, False):
        raw = json.dumps({"a": f"<{secret}>"}, ensure_ascii=ascii_only).encode()
        assert {"a": "<***>"} == json.loads(redactor.raw(raw))


def test_a_value_that_contains_another_is_masked_whole():
    assert "***" == Redactor(["secret", "secret-and-more"]).text("secret-and-more")


def test_values_too_short_to_be_told_from_words_are_left():
    redactor = Redactor(["abc", ""])

    assert not redactor
    assert "abc" == redactor.text("abc")


def test_a_redactor_without_secrets_says_so():
    assert not Redactor([])
    assert Redactor(["open-sesame"])


def test_secrets_of_an_environment_are_the_values_under_secret_names():
    env = {"API_KEY": "one", "URL": "two", "HF_TOKEN": "three"}

    assert ["one", "three"] == secrets_of_env(env)
