"""Formulas, links out of docs/, and docstrings, as the site shows them."""

from types import SimpleNamespace

import fences
import pytest
from formulas import on_page_content
from repository_links import on_page_markdown

PAGE = SimpleNamespace(file=SimpleNamespace(src_uri="explanation/pgcd.md"))


def rendered(latex, tag="span"):
    pytest.importorskip("latex2mathml", reason='needs pip install ".[docs]"')
    marks = (r"\(", r"\)") if tag == "span" else (r"\[", r"\]")
    return on_page_content(f'<p>a <{tag} class="arithmatex">{marks[0]}{latex}{marks[1]}</{tag}></p>', page=PAGE)


def test_a_formula_becomes_mathml():
    assert "<mfrac><mrow><mn>1</mn></mrow><mrow><mi>N</mi></mrow></mfrac>" in rendered(r"\frac{1}{N}")
    assert 'display="block"' in rendered("x", tag="div")


def test_signs_that_html_escapes_are_read_in_a_formula():
    assert "<mo>&lt;</mo>" in rendered("c &lt; K").replace("&#x0003C;", "&lt;")


@pytest.mark.parametrize("latex", [r"\nonsense{x}", r"\frac{1}{", r"\left( x"])
def test_a_formula_that_cannot_be_converted_ends_the_build(latex):
    pytest.importorskip("mkdocs", reason='needs pip install ".[docs]"')
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match=r"explanation/pgcd\.md: the formula"):
        rendered(latex)


def linked(markdown, tmp_path, repo_url=None):
    pytest.importorskip("mkdocs", reason='needs pip install ".[docs]"')
    (tmp_path / "benchmarks").mkdir(exist_ok=True)
    (tmp_path / "benchmarks" / "a.md").touch()
    config = {"config_file_path": str(tmp_path / "mkdocs.yml"), "repo_url": repo_url}
    return on_page_markdown(markdown, page=PAGE, config=config)


def test_a_link_out_of_the_site_names_the_file_or_leads_to_the_repository(tmp_path):
    link = "[study](../../benchmarks/a.md#seeds)"
    assert linked(link, tmp_path) == "study (`benchmarks/a.md`)"
    assert linked(f"(x)\n\n(As a\n{link} shows.)", tmp_path) == "(x)\n\n(As a\nstudy, `benchmarks/a.md` shows.)"
    assert linked("[like\none](../../benchmarks/a.md)", tmp_path) == "like\none (`benchmarks/a.md`)"
    assert linked(f"in [0, 1)\n{link}", tmp_path) == "in [0, 1)\nstudy (`benchmarks/a.md`)"
    assert linked("[no\n\nlink](../../benchmarks/a.md)", tmp_path) == "[no\n\nlink](../../benchmarks/a.md)"
    assert linked(link, tmp_path, "https://x/y/") == "[study](https://x/y/blob/HEAD/benchmarks/a.md#seeds)"


def test_a_link_within_the_site_and_a_picture_stay(tmp_path):
    for markdown in ("[g](../glossary.md)", "![p](../images/p.svg)", "[x](methods.md)"):
        assert linked(markdown, tmp_path) == markdown


def test_a_link_to_no_file_ends_the_build(tmp_path):
    with pytest.raises(Exception, match=r"there is no benchmarks/b\.md"):
        linked("[study](../../benchmarks/b.md)", tmp_path)


def test_equations_in_docstrings_are_not_taken_for_markdown():
    pytest.importorskip("griffe", reason='needs pip install ".[docs]"')
    from plain_docstrings import PlainDocstrings

    docstring = SimpleNamespace(
        value="log q_{k} of `a_*b`, https://x/y_.z.\n\nArgs:\n    log_probs: (N, *spatial)\n    *more: x"
    )
    PlainDocstrings().on_object(obj=SimpleNamespace(docstring=docstring))
    assert (
        docstring.value
        == "log q\\_{k} of `a_*b`, <https://x/y_.z>.\n\nArgs:\n    log_probs: (N, \\*spatial)\n    *more: x"
    )


def test_comments_to_the_tests_are_not_shown():
    block = "```bash\nrun # fast\n```\n"
    shown = fences.on_page_markdown(f"Run:\n\n<!-- not run by the tests: long -->\n{block}", page=PAGE)
    assert shown == f"Run:\n\n{block}"
