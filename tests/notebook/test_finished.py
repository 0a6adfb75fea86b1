"""A finished job is found again by what made it, and by nothing else."""

from pathlib import Path

import nbformat
import pytest

from fly64lib.cli.main import main
from fly64lib.notebook.finished import keep, result_key, take


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.npz", tmp_path / "deep" / "b.json"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
    return paths


def test_what_was_kept_is_put_in_its_place(files: list[Path], tmp_path: Path) -> None:
    assert not take(tmp_path / "kept", "key", files)
    keep(tmp_path / "kept", "key", files)
    files[0].unlink()
    files[1].unlink()
    files[1].write_text("half")
    assert take(tmp_path / "kept", "key", files)
    assert [path.read_text() for path in files] == ["a.npz", "b.json"]
    assert not take(tmp_path / "kept", "other", files)


def test_a_file_that_is_written_anew_leaves_the_kept_one(files: list[Path], tmp_path: Path) -> None:
    """As all writers here do: another file is renamed into its place."""
    keep(tmp_path / "kept", "key", files)
    (tmp_path / "new").write_text("new")
    (tmp_path / "new").rename(files[0])
    assert take(tmp_path / "kept", "key", files) and files[0].read_text() == "a.npz"


def test_the_key_follows_words_and_inputs(files: list[Path]) -> None:
    key = result_key(["dose 1"], files)
    assert key == result_key(["dose 1"], files) != result_key(["dose 2"], files)
    files[0].write_text("other")
    assert key != result_key(["dose 1"], files)


@pytest.mark.slow
def test_a_notebooks_job_is_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, out, result = (tmp_path / name for name in ("n.ipynb", "out.ipynb", "r.txt"))
    code = f"open({str(tmp_path / 'ran')!r}, 'a').write('x')\nopen({str(result)!r}, 'w').write(a)\n"
    code += f"print('results: {result}')"
    cells = [nbformat.v4.new_code_cell("a = ''"), nbformat.v4.new_code_cell(code)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), source)
    kept = ["--finished", str(tmp_path / "kept"), "--code", "c", "--inputs", str(source)]
    kept += ["--outputs", str(out), str(result)]

    def ran(value: str) -> int:
        assert main(["notebook", str(source), str(out), *kept, "-p", "a", value]) == 0
        return len((tmp_path / "ran").read_text())

    assert ran("one") == 1
    out.unlink()
    result.unlink()
    assert ran("one") == 1 and result.read_text() == "one"
    assert "was finished by an earlier run" in capsys.readouterr().out
    assert ran("two") == 2 and result.read_text() == "two"
