"""The mutants fit the source: what they are to change is there, once."""
import pytest

from mutants import CHANGE, HERE, ROOT, Mutant, Stale, load


@pytest.mark.parametrize("mutant", load(), ids=lambda m: m.name)
def test_fits(mutant, tmp_path):
    for path in {c[0] for c in mutant.changes}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text((ROOT / path).read_text(encoding="utf-8"), encoding="utf-8")
    before = mutant.apply(tmp_path)
    assert all((tmp_path / p).read_text(encoding="utf-8") != text for p, text in before.items())


def test_one_that_does_not_fit_is_said(tmp_path):
    (tmp_path / "a.c").write_text("int a;\nint a;\n")
    for old in ("int b;\n", "int a;\n"):
        with pytest.raises(Stale):
            Mutant("m", "", [], [("a.c", old, "x")]).apply(tmp_path)
    assert (tmp_path / "a.c").read_text() == "int a;\nint a;\n"


def test_a_file_that_is_no_mutant_is_said(tmp_path):
    (tmp_path / "m.mutant").write_text("faults: kill\nfile: a.c\n<<<<\nno end\n")
    with pytest.raises(Stale):
        Mutant.load(tmp_path / "m.mutant")
    assert CHANGE and len(list((HERE / "mutants").iterdir())) == len(load()), "something in mutants/ is not a mutant"
