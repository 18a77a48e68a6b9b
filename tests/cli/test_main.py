"""`muster` itself: version, help, and what completes it in a shell."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from muster.cli import main, verbs


def exit_code(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as raised:
        main(words)
    return raised.value.code


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"muster {version('muster')}\n"


@pytest.mark.parametrize("words", [(), ("simulate",), ("local", "up")])
def test_help_verb_says_what_the_option_says(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert exit_code("help", *words) == 0
    by_verb = capsys.readouterr().out
    assert exit_code(*words, "--help") == 0
    assert by_verb == capsys.readouterr().out


def test_help_of_an_unknown_verb_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("help", "juggle") == 2
    assert "juggle" in capsys.readouterr().err


def test_completion_offers_every_verb_and_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out + "COMP_WORDS=(muster {words}); COMP_CWORD={last}; _shtab_muster; echo ${COMPREPLY[@]}"

    def completed(*words: str) -> set[str]:
        text = script.replace("{words}", " ".join(words)).replace("{last}", str(len(words)))
        return set(subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True).stdout.split())

    assert set(verbs.installed()) <= completed("''")
    assert completed("sim") == {"simulate"}
    assert "--with-muster" in completed("local", "up", "--w")


def test_completion_without_the_requirements_of_a_verb_still_offers_the_verb() -> None:
    code = "import sys; sys.modules['rich'] = None\nfrom muster.cli import main\nsys.exit(main(['completion', 'zsh']))"
    script = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "simulate" in script
