from tinyseg.common.findings import Finding, listed, printable, table, worst

ERROR = Finding("error", "files", "a file is bad", "it stops", "remove it", ("a", "b"))
NOTE = Finding("note", "words", "long " * 40)


def test_the_worst_level_decides():
    assert worst([]) == "ok"
    assert worst([NOTE, ERROR, Finding("ok", "x", "y")]) == "error"
    assert worst([NOTE, Finding("warning", "x", "y")]) == "warning"


def test_listed_counts_what_differs():
    assert listed("note", "x", "things", []) == []
    (finding,) = listed("note", "x", "things", [1, 2, 1], "why", "do")
    assert finding == Finding("note", "x", "things: 2", "why", "do", ("1", "2"))


def test_the_table_has_the_worst_first_in_lines_of_its_width():
    text = table([NOTE, ERROR], width=60)
    assert text.splitlines()[:5] == [
        "error   files         a file is bad",
        "                 why: it stops",
        "                  do: remove it",
        "        - a",
        "        - b",
    ]
    assert text.splitlines()[5].startswith("note    words         long long")
    assert max(map(len, text.splitlines())) <= 60


def test_evidence_is_cut_in_the_table_only():
    many = Finding("note", "x", "y", evidence=tuple(map(str, range(9))))
    assert table([many], most=5).splitlines()[-1] == "        - and 4 more"
    assert len(many.to_json()["evidence"]) == 9


def test_what_a_terminal_would_obey_is_shown():
    assert printable("a\x1b[0m\udcff\nü") == "a\\x1b[0m\\udcff\\nü"
