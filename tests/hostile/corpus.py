"""A whole corpus at once: every case that is not answered as it should be is in one message."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from omgsr_jax import converted

from .edits import Case
from .judge import Answer, assert_sentence, untouched

# Of a folder that is damaged, and of one that may be written.
Ask = Callable[[Path, Path], Answer]

# Keys of a checkpoint that do not fit are listed below the sentence.
_LONGEST_LIST = 100


def assert_sentences(cases: Sequence[Case], original: Path, tmp_path: Path, ask: Ask) -> None:
    """Every case that has words for it fails, with a sentence that has them, and leaves nothing."""
    chosen, failures = [case for case in cases if case.words], []
    for case in chosen:
        folder, out = damaged(case, original, tmp_path / "inputs"), tmp_path / "out"
        try:
            with untouched(tmp_path):
                answer = ask(folder, out)
            assert answer.code == 1, f"exit code {answer.code}"
            sentence, *listed = answer.err.splitlines()
            assert_sentence(sentence)
            assert len(listed) <= _LONGEST_LIST, f"{len(listed)} lines"
            lost = [word for word in case.words if word not in answer.err]
            assert not lost, f"{lost} not in: {answer.err}"
        except Exception as error:  # an assertion, or what would be a traceback
            failures.append(f"{case.name}: {type(error).__name__}: {str(error)[:400]}")
        shutil.rmtree(folder)
        shutil.rmtree(out, ignore_errors=True)
    assert not failures, f"{len(failures)} of {len(chosen)}:\n" + "\n".join(failures)


def assert_same_weights(
    cases: Sequence[Case], original: Path, tmp_path: Path, ask: Ask, expected: Path
) -> None:
    """Every case without words ends well, with the weights of the model `expected`."""
    whole, failures = converted.by_name_on_host(expected), []
    for case in cases:
        if case.words:
            continue
        folder, out = damaged(case, original, tmp_path / "inputs"), tmp_path / "out"
        with untouched(folder):
            answer = ask(folder, out)
        if answer.code:
            failures.append(f"{case.name}: {answer.err}")
            continue
        found = converted.by_name_on_host(out)
        failures += [f"{case.name}: {name}" for name in found.keys() ^ whole.keys()]
        failures += [
            f"{case.name}: {name}" for name in whole if not np.array_equal(found[name], whole[name])
        ]
        shutil.rmtree(out)
    assert not failures, "\n".join(failures)


def damaged(case: Case, original: Path, parent: Path) -> Path:
    """A copy of a folder, with the case done to it."""
    folder = parent / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder, symlinks=True)
    case.edit(folder)
    return folder
