"""The notebooks' guard: what papermill or a person put into the parameters is checked by name
before anything runs."""

import ast
import re
import subprocess
import sys
from operator import attrgetter

import pytest

from fly64lib import generation, overlap
from fly64lib.design.study import ScanDesign
from fly64lib.notebook.parameters import (
    GenerateParameters,
    OverlapParameters,
    TrainParameters,
    read_parameters,
)
from ptycho_torch.config import ModelConfig, TrainingConfig
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
        ("progress = 'never'", "progress='never': expected a valid boolean"),
        ("dose = (1e3, 1e4)", "dose: (1000.0, 10000.0) is a list, expected one number"),
        ("dose = 'high'", "dose='high': expected a valid number"),
        ("steps = 10.5", "steps=10.5: expected a valid integer"),
        ("steps = True", "steps: True is no number"),
        ("dose = True", "dose: True is no number"),
        ("dose = float('nan')", "not a whole number of photons"),
        ("dose = 0", "dose=0"),
        ("view = 'dens'", "view='dens' is not known; did you mean 'dense'?"),
        ("gridsize = 3", "gridsize=3: expected 1 or 2"),
        ("test_npz = 'b.npz'", "test_npz is given without train_npz"),
        ("output_dir = None", "output_dir=None: expected a valid string"),
        (
            "training = {'widht': 32}",
            "unknown parameter 'widht' of a training; did you mean 'width'?",
        ),
        ("training = {'width': 33}", "width=33: expected a multiple of 8"),
        ("training = {'gridsize': 2}", "unknown parameter 'gridsize' of a training"),
        ("design = {'scanstep': 2}", "unknown parameter 'scanstep' of ScanDesign; did you mean"),
        ("design = {'doses': [1e3]}", "this notebook has one dose, the parameter `dose`"),
    ],
)
def test_a_misspelt_ill_typed_or_impossible_parameter_is_refused_by_name(text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
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


def test_the_paths_that_papermill_itself_injects_are_no_misspelt_parameters():
    """`papermill --inject-paths` puts both into the cell of the parameters."""
    paths = "PAPERMILL_INPUT_PATH = 'a.ipynb'\nPAPERMILL_OUTPUT_PATH = 'b.ipynb'\n"
    assert read(DEFAULTS, injected(paths + "dose = 10")).dose == 10.0
    with pytest.raises(ConfigError, match="unknown parameter 'PAPERMILL_PATH'"):
        read(DEFAULTS, injected("PAPERMILL_PATH = 'a.ipynb'"))


@pytest.mark.parametrize(
    ("cls", "text", "name", "value"),
    [
        (GenerateParameters, "doses = ['1e4', '3e5']", "doses", (1e4, 3e5)),
        (GenerateParameters, "doses = '1e4'", "doses", (1e4,)),
        (GenerateParameters, "N = '6.4e1'", "N", 64),
        (TrainParameters, "n_images = '1e3'", "n_images", 1000),
        (TrainParameters, "training = {'steps': '1e2'}", "config.steps", 100),
        (TrainParameters, "training = {'learning_rate': '1e-3'}", "config.learning_rate", 1e-3),
    ],
)
def test_what_yaml_gives_as_text_is_read_as_the_number_that_it_says(cls, text, name, value):
    """`papermill -y 'doses: [1e4]'`: YAML 1.1 has no number without a point and a sign."""
    assert attrgetter(name)(read(injected(text), cls=cls)) == value


def test_variables_that_a_person_made_beside_the_parameters_do_not_disturb():
    assert read(DEFAULTS, "dosee = 3\nimport math\n", injected("dose = 10")).dose == 10.0


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("training = {'width': 24}", 24),
        ("training = '{\"width\": 24}'", 24),
        ("steps = 5", ModelConfig().width),
    ],
)
def test_settings_may_be_a_mapping_or_text_and_reach_the_network(text, width):
    assert read(injected(text)).config.model.width == width


def test_a_setting_is_the_configurations_own_a_parameter_of_its_name_or_in_the_mapping():
    assert read("n_images = None").config == TrainingConfig()
    short = read(injected("epochs = 3; batch_size = 16; replicate = 2; N = 32; seed = 5")).config
    given = {"max_epochs": 3, "batch_size": 16, "N": 32, "n_images": 1000, "seed": 2005}
    assert short == TrainingConfig().with_settings(given)
    long = read(injected("steps = 5; training = {'steps': 7, 'keep': 0.7, 'depth': 4}")).config
    assert (long.steps, long.keep, long.model.depth) == (7, 0.7, 4)  # the mapping goes before
    design = read(injected("specimen = 'lines'; design = {'scan_step': 3}")).scan_design
    assert design == ScanDesign(doses=(1e5,), specimen="lines", scan_step=3)


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
