"""The notebooks' guard: what papermill or a person put into the parameters is checked by name
before anything runs."""

import ast
import subprocess
import sys

import pytest

from fly64lib import generation, overlap
from fly64lib.notebook.parameters import (
    GenerateParameters,
    OverlapParameters,
    TrainParameters,
    read_parameters,
)
from fly64lib.notebook.train import training_config
from ptycho_torch.errors import ConfigError

DEFAULTS = "dose: float = 1e5  # photons\nprogress: bool = False\n"


def injected(text: str) -> str:
    return f"# Parameters\n{text}\n"


def read(*cells: str, cls: type = TrainParameters) -> object:
    """Run cells one after another as a kernel does, `In` growing with them, and read the parameters
    at the end."""
    namespace: dict = {}
    for cell in cells:
        exec(cell, namespace)
    return read_parameters(cls, namespace, ["", *cells, "parameters = read_parameters(...)"])


def test_without_an_injected_cell_the_notebooks_own_values_count():
    assert read(DEFAULTS) == TrainParameters()
    assert read(DEFAULTS.replace("1e5", "2e3")).dose == 2e3  # changed by hand in JupyterLab


def test_injected_values_replace_the_defaults_and_an_int_passes_for_a_float():
    parameters = read(DEFAULTS, injected("dose = 1000\nview = 'dense'"))
    assert (
        parameters.dose == 1000.0 and type(parameters.dose) is float and parameters.view == "dense"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dosee = 1000", "unknown parameter 'dosee' of TrainParameters; did you mean 'dose'?"),
        ("learningrate = 0.1", "did you mean 'learning_rate'?"),
        ("zzz = 1", "unknown parameter 'zzz' of TrainParameters"),
        (
            "progress = 'true'",
            r"progress='true' is a str, expected bool \(papermill: pass True or False,"
            r" capitalised\)",
        ),
        ("dose = 'high'", "dose='high' is a str, expected float"),
        ("steps = 10.0", "steps=10.0 is a float, expected int"),
        ("steps = True", "steps=True is a bool, expected int"),
        ("dose = True", "dose=True is a bool"),
        ("dose = float('nan')", "dose=nan lies outside"),
        ("dose = 0", "dose=0.0 lies outside"),
        ("view = 'dens'", "view='dens' is not one of 'baseline', 'dense', 'sparse'"),
        ("gridsize = 3", "gridsize=3 is not one of"),
        ("test_npz = 'b.npz'", "test_npz is given without train_npz"),
        ("output_dir = None", "output_dir=None is a NoneType"),
    ],
)
def test_a_misspelt_ill_typed_or_impossible_parameter_is_refused_by_name(text, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        read(DEFAULTS, injected(text))


def test_a_rerun_in_jupyterlab_takes_the_latest_injected_cell():
    first, later = injected("dosee = 1000"), injected("dose = 1000")
    with pytest.raises(ConfigError, match="dosee"):
        read(DEFAULTS, first)
    assert (
        read(DEFAULTS, first, DEFAULTS, later).dose == 1e3
    )  # corrected in place and run again in one kernel
    assert read(DEFAULTS, later, "print('a figure')", DEFAULTS, later).dose == 1e3
    with pytest.raises(ConfigError, match="dosee"):
        read(DEFAULTS, later, DEFAULTS, first)


def test_variables_that_a_person_made_beside_the_parameters_do_not_disturb():
    assert read(DEFAULTS, "dosee = 3\nimport math\n", injected("dose = 10")).dose == 10.0


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("canvas_passes = [2, 10]", (2, 10)),
        ("canvas_passes = 7", (7,)),
        ("canvas_passes = '3, 12'", (3, 12)),
        ("steps = 5", (2, 5)),
    ],
)
def test_passes_may_be_a_list_a_number_or_text_and_reach_the_network(text, passes):
    parameters = read(injected(text))
    assert parameters.canvas_passes == training_config(parameters).model.canvas_passes == passes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("canvas_passes = [10, 2]", "do not rise"),
        ("canvas_passes = []", "number of canvas_passes"),
        ("canvas_passes = 0", "canvas_passes=0"),
        ("canvas_passes = 'many'", "not a list of whole numbers such as '2,10'"),
        ("canvas_passes = [2.5]", "canvas_passes"),
    ],
)
def test_passes_that_cannot_be_are_refused_by_name(text, message):
    with pytest.raises(ConfigError, match=message):
        read(injected(text))


@pytest.mark.parametrize(
    ("text", "doses"),
    [
        ("doses = 1000", (1e3,)),
        ("doses = [1000, 3e4]", (1e3, 3e4)),
        ("doses = '1000,300'", (1e3, 300.0)),
    ],
)
def test_doses_may_be_one_number_a_list_or_text(text, doses):
    assert read(injected(text), cls=GenerateParameters).doses == doses
    assert read(injected(text), cls=OverlapParameters).doses == doses


@pytest.mark.parametrize(
    ("cls", "text", "message"),
    [
        (GenerateParameters, "doses = [1e3, True]", "doses"),
        (GenerateParameters, "doses = 1000.5", "dose=1000.5 is not a whole number of photons"),
        (GenerateParameters, "doses = []", "doses: .* at least one"),
        (GenerateParameters, "scan_step = 0", "scan_step=0"),
        (GenerateParameters, "simulation = 'exact'", "simulation='exact': expected 'fine'"),
        (
            GenerateParameters,
            "dose = 1000",
            "unknown parameter 'dose' of GenerateParameters; did you mean 'doses'",
        ),
        (OverlapParameters, "s_img = 1.5", "s_img=1.5"),
        (OverlapParameters, "gridsize = 0", "gridsize=0"),
        (OverlapParameters, "s_image = 0.5", "did you mean 's_img'"),
        (OverlapParameters, "controls = 'never'", "controls='never'"),
        (OverlapParameters, "views = 'dense,1.5'", "view='1.5' is not known"),
    ],
)
def test_bad_parameters_of_the_data_notebooks_are_refused_before_anything_runs(cls, text, message):
    with pytest.raises(ConfigError, match=message):
        read(injected(text), cls=cls)


def test_the_data_notebooks_have_the_command_lines_options_and_defaults():
    for parameters, options in (
        (GenerateParameters(), generation.Options(output_root="runs/study/phase_c")),
        (
            OverlapParameters(),
            overlap.Options(phase_c_root="c", output_root="d", artifact_root="a"),
        ),
    ):
        assert parameters.design == options.design
    assert GenerateParameters().base_npz is generation.Options(output_root="c").base_npz is None
    assert OverlapParameters().doses is None


def test_reading_parameters_imports_nothing_heavy():
    """A misspelt name has to fail within seconds, and torch alone takes some."""
    code = (
        "import sys, fly64lib.notebook.parameters; "
        "print(sorted({'torch', 'lightning', 'numpy', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert ast.literal_eval(answer) == []
