"""An executed notebook's page has its prose, code, outputs and pictures, and runs nothing."""

import nbformat

from fly64lib.report.notebook_html import metadata_of, notebook_html, page_of, write_page
from ptycho_torch.files import write_json


def test_a_page_holds_what_the_notebook_holds_and_no_script(tmp_path):
    cell = nbformat.v4.new_code_cell("a < b")
    cell.outputs = [
        nbformat.v4.new_output("stream", text="42 photons\n"),
        nbformat.v4.new_output("display_data", {"image/png": "AAAA\n", "text/plain": "<Image>"}),
        nbformat.v4.new_output("display_data", {"text/html": "<b>bold</b><script>x()</script>"}),
        nbformat.v4.new_output("display_data", {"text/markdown": "| a | b |"}),
        nbformat.v4.new_output("error", ename="E", evalue="", traceback=["\x1b[31mE: no\x1b[0m"]),
    ]
    prose = nbformat.v4.new_markdown_cell("# Title\n\nText & more")
    path = tmp_path / "run.failed.ipynb"
    write_json(path, nbformat.v4.new_notebook(cells=[prose, cell]))
    page = write_page(path)
    assert page.name == "run.failed.html" == page_of(path.name)
    text = page.read_text(encoding="utf-8")
    for part in (
        *(
            "<h1>Title</h1>",
            "Text &amp; more",
            "a &lt; b",
            "42 photons",
            "<b>bold</b>",
            "| a | b |",
        ),
        *('src="data:image/png;base64,AAAA"', ">E: no</pre>"),
    ):
        assert part in text
    assert "<script" not in text


def test_a_notebook_without_cells_is_an_empty_page():
    assert "</body>" in notebook_html({"metadata": {}}, "empty")


def test_what_a_notebook_took_is_read_without_its_cells(tmp_path):
    path = tmp_path / "run.ipynb"
    cell = nbformat.v4.new_code_cell("1", metadata={"tags": ["parameters"]})
    cell.outputs = [nbformat.v4.new_output("stream", text='\n "metadata": {"no": 1}' * 9000)]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"fly64": {"cpu_seconds": 2.5}})
    nbformat.write(notebook, path)
    assert metadata_of(path) == notebook.metadata
    whole = path.read_bytes()
    path.write_bytes(b"not JSON" + whole[8:])
    assert metadata_of(path) == notebook.metadata
    write_json(path, notebook)  # in another layout it is read whole
    assert metadata_of(path) == notebook.metadata
