"""The bounds against dense matrices, an efficient estimator, closed forms and their own limits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal.windows import tukey

from fly64lib.evaluation.gauge import align
from fly64lib.evaluation.information import Information, gauge_projector
from fly64lib.evaluation.limits import Limits, limits
from fly64lib.evaluation.rings import frc_curve
from fly64lib.evaluation.scores import score
from fly64lib.evaluation.spectrum import ClassSpectrum, class_spectrum
from fly64lib.simulation.probes import fourier_crop
from ptycho_torch.errors import ConfigError, DataContractError, PtychoError
from ptycho_torch.iteration.canvas import canvas_steps
from ptycho_torch.physics.geometry import Detector, Geometry, Patterns
from ptycho_torch.physics.noise import draw_counts

N, SHAPE, WHOLE = 8, (13, 15), (slice(0, 13), slice(0, 15))


def _field(rng: np.random.Generator, shape: tuple[int, ...], smooth: float = 0.0) -> np.ndarray:
    white = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    q2 = np.fft.fftfreq(shape[-2])[:, None] ** 2 + np.fft.fftfreq(shape[-1]) ** 2
    return np.fft.ifft2(np.fft.fft2(white) * np.exp(-q2 * smooth**2))


@pytest.fixture
def small():
    """object, probe (2 incoherent modes), xcoords, ycoords: complex, non-square, sub-pixel, every
    pixel well lit."""
    rng = np.random.default_rng(3)
    parts = _field(rng, SHAPE, 3.0)
    image = (1 + 0.2 * parts.real) * np.exp(1j * parts.imag)
    probe = 4 * _field(rng, (2, N, N)) * np.array([1, 0.4])[:, None, None]
    rows, columns = np.meshgrid([0, 2, 3, 5], [0, 1, 3, 5, 7], indexing="ij")
    y, x = (corner.ravel() + N / 2 for corner in (rows, columns))
    inward_y, inward_x = (
        np.where(c == c.min(), 0.25, np.where(c == c.max(), -0.25, 0.375)) for c in (y, x)
    )
    return image, probe, x + inward_x, y + inward_y


def _dense(image, probe, x, y, measured=slice(None), brightness=None, background=0.0):
    """Fisher information by explicit matrices in numpy, over (Re O, Im O, Re P, Im P); `measured`
    indexes the pixels of the flattened far field."""
    k = np.arange(N) - N // 2
    line = np.exp(-2j * np.pi * np.outer(k, k) / N) / N**0.5
    fourier = np.kron(line, line)
    modes, pixels = len(probe), image.size
    total = np.zeros((2 * (pixels + probe.size),) * 2)
    brightness = np.ones(len(x)) if brightness is None else brightness
    for xj, yj, bright in zip(x, y, brightness, strict=True):
        corner = np.rint([yj - N / 2, xj - N / 2]).astype(int)
        shifts = np.array([yj - N / 2, xj - N / 2]) - corner
        ramp = [np.exp(-2j * np.pi * np.fft.fftfreq(N) * s) for s in shifts]
        move = np.kron(
            *[np.fft.ifft(r[:, None] * np.fft.fft(np.eye(N), axis=0), axis=0) for r in ramp]
        )
        index = np.ravel_multi_index(
            np.ix_(corner[0] + np.arange(N), corner[1] + np.arange(N)), image.shape
        ).ravel()
        patch, slopes, expected = image.ravel()[index], [], 0
        jacobian = np.zeros((N * N, pixels + probe.size), complex)
        for m in range(modes):
            moved = move @ probe[m].ravel()
            wave = fourier @ (moved * patch)
            change = np.zeros_like(jacobian)
            change[:, index] = fourier * moved
            change[:, pixels + m * N * N : pixels + (m + 1) * N * N] = (fourier * patch) @ move
            jacobian += 2 * wave.conj()[:, None] * change
            expected = expected + abs(wave) ** 2
        jacobian, expected = bright * jacobian[measured], bright * expected[measured] + background
        slopes = np.hstack([jacobian.real, -jacobian.imag]) / np.sqrt(expected)[:, None]
        total += slopes.T @ slopes
    order = np.r_[0:pixels, pixels + probe.size : 2 * pixels + probe.size]
    return total, order


def _real(rows: np.ndarray) -> np.ndarray:
    return np.hstack([rows.real, rows.imag])


def _complex(rows: np.ndarray) -> np.ndarray:
    return rows[:, : rows.shape[1] // 2] + 1j * rows[:, rows.shape[1] // 2 :]


def _geometry(image, probe, x, y) -> Geometry:
    centres = torch.tensor(np.stack([y, x], 1))
    return Geometry.of(centres, torch.tensor(probe), image.shape, whole=True)


def bound_of(image, probe, x, y, region, prior=None, **how) -> Limits:
    return limits(image, _geometry(image, probe, x, y), region, prior, **how)


def _flat_spectrum(amplitude: float, phase: float) -> ClassSpectrum:
    return ClassSpectrum(np.array([0, 1.5]), np.full(2, amplitude), np.full(2, phase), np.zeros(2))


def _steep_spectrum() -> ClassSpectrum:
    """Amplitude and phase go together in slow changes, and against each other in fast ones."""
    frequency = np.linspace(0, 1.5, 20)
    powers = 0.02 / (1 + 30 * frequency**2), 0.1 / (1 + 60 * frequency**3)
    cross = np.linspace(0.9, -0.5, 20) * np.sqrt(powers[0] * powers[1])
    return ClassSpectrum(frequency, *powers, cross)


def _prior_precision(image: np.ndarray, spectrum: ClassSpectrum, region) -> np.ndarray:
    """C^-1 over (Re O, Im O): circulant in the radial and tangential direction of each pixel, from
    a dense DFT."""
    dft = np.kron(*(np.fft.fft(np.eye(size), norm="ortho") for size in image.shape))
    size = np.mean(abs(image[region]) ** 2) ** 0.5
    amplitude, phase, cross = spectrum.on_grid(image.shape)
    covariance = [[amplitude, size * cross], [size * cross, size**2 * phase]]
    precision = np.linalg.inv(np.moveaxis(np.array(covariance), (0, 1), (-2, -1)))
    blocks = [
        [(dft.conj().T * precision[..., row, column].ravel() @ dft).real for column in (0, 1)]
        for row in (0, 1)
    ]
    c, s = np.diag(np.cos(np.angle(image.ravel()))), np.diag(np.sin(np.angle(image.ravel())))
    turn = np.block([[c, s], [-s, c]])
    return turn.T @ np.block(blocks) @ turn


@pytest.mark.parametrize("probe_known", [True, False])
@pytest.mark.parametrize("prior", [None, _steep_spectrum()], ids=["unbiased", "bayesian"])
def test_the_matrix_free_information_is_the_dense_one_of_the_poisson_model(
    small, probe_known, prior
):
    image, probe, x, y = small
    information = Information(_geometry(*small), torch.tensor(image), WHOLE, prior, probe_known)
    dense, order = _dense(*small)
    if prior is not None:
        dense[np.ix_(order, order)] += _prior_precision(image, prior, WHOLE)
    if probe_known:
        dense = dense[np.ix_(order, order)]
    vectors = _complex(np.random.default_rng(0).standard_normal((3, len(dense))))
    found = information.apply(torch.tensor(vectors)).numpy()
    expected = _complex(_real(vectors) @ dense)
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("probe_known", [True, False])
@pytest.mark.parametrize("side", [8, 6, 5])
def test_the_information_of_a_smaller_detector_is_the_dense_one(small, probe_known, side):
    """Light beside it tells nothing, nor do pixels that were not measured; exposures differ in
    brightness, and a background adds noise."""
    image, rng = small[0], np.random.default_rng(5)
    mask, background = rng.random((side, side)) > 0.2, rng.uniform(0.1, 2, (side, side))
    brightness, first = rng.uniform(0.5, 1.5, len(small[2])), N // 2 - side // 2
    kept = np.arange(N * N).reshape(N, N)[first : first + side, first : first + side]
    dense, order = _dense(*small, kept[mask], brightness, background[mask])
    detector = Detector(side, torch.tensor(mask), torch.tensor(background))
    plain = _geometry(*small)
    geometry = replace(plain, detector=detector, brightness=torch.tensor(brightness))
    information = Information(geometry, torch.tensor(image), WHOLE, None, probe_known)
    if probe_known:
        dense = dense[np.ix_(order, order)]
    vectors = _complex(rng.standard_normal((3, len(dense))))
    found = information.apply(torch.tensor(vectors)).numpy()
    expected = _complex(_real(vectors) @ dense)
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


def test_a_bound_on_a_finer_grid_is_that_of_what_the_detectors_grid_holds_of_the_error():
    """Against dense matrices: the covariance goes through the Fourier crop before it is scored."""
    rng, side, shape = np.random.default_rng(8), 4, (12, 16)
    parts = _field(rng, shape, 3.0)
    image = (1 + 0.2 * parts.real) * np.exp(0.5j * parts.imag)
    probe = 4 * _field(rng, (1, N, N))
    rows, columns = (axis.ravel() for axis in np.indices((5, 9)))
    y, x = rows + N / 2 - 0.25 * (rows == 4), columns + N / 2 - 0.25 * (columns == 8)
    first = N // 2 - side // 2
    kept = np.arange(N * N).reshape(N, N)[first : first + side, first : first + side].ravel()
    dense, order = _dense(image, probe, x, y, kept)
    spectrum = _flat_spectrum(0.05, 0.05)  # without it what no light reaches has no bound
    precision = dense[np.ix_(order, order)]
    precision += _prior_precision(image, spectrum, (slice(0, 12), slice(0, 16)))
    small_shape, pixels = (6, 8), np.eye(image.size).reshape(-1, *shape)
    crop = np.stack([fourier_crop(one, small_shape, "mean").ravel() for one in pixels], 1)
    crop = np.block([[crop.real, -crop.imag], [crop.imag, crop.real]])
    covariance = crop @ np.linalg.inv(precision) @ crop.T
    truth = fourier_crop(image, small_shape, "mean").ravel()
    gauge = np.concatenate([-truth.imag, truth.real])  # i O
    away = np.eye(len(gauge)) - np.outer(gauge, gauge) / (gauge @ gauge)
    covariance = away @ covariance @ away
    turn = truth.conj() / np.abs(truth) ** 2
    tangent = np.hstack([np.diag(turn.imag), np.diag(turn.real)])  # Im(dO / O)
    expected = np.trace(tangent @ covariance @ tangent.T) / truth.size
    geometry = replace(_geometry(image, probe, x, y), detector=Detector(side))
    found = limits(
        image,
        geometry,
        (slice(0, 6), slice(0, 8)),
        spectrum,
        sign_vectors=80,
        tolerance=1e-5,
    )
    assert found.phase.mse == pytest.approx(expected, abs=5 * found.phase.mse_error)
    assert found.phase.mse_error < 0.1 * expected


def _dense_covariance(small, prior=None, probe_known=True, region=WHOLE):
    """Covariance of Re, Im of the error over the region, in the score's gauge."""
    image = small[0]
    dense, order = _dense(*small)
    if prior is not None:
        dense[np.ix_(order, order)] += _prior_precision(image, prior, region)
    covariance = (
        np.linalg.pinv(dense, rcond=1e-9, hermitian=True)[np.ix_(order, order)]
        if not probe_known
        else np.linalg.pinv(dense[np.ix_(order, order)], rcond=1e-9, hermitian=True)
    )
    inside = np.arange(image.size).reshape(image.shape)[region].ravel()
    inside = np.r_[inside, inside + image.size]
    remove = gauge_projector(torch.tensor(image), region, probe_known)
    shape = image[region].shape
    project = _real(
        remove(torch.tensor(_complex(np.eye(len(inside)))).view(-1, *shape)).flatten(1).numpy()
    )
    return project @ covariance[np.ix_(inside, inside)] @ project.T


def _dense_mse(covariance: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    c, s = np.cos(np.angle(truth.ravel())), np.sin(np.angle(truth.ravel()))
    n = truth.size
    rr, ri, ii = np.diag(covariance)[:n], np.diag(covariance, n), np.diag(covariance)[n:]
    tangential, radial = (
        s**2 * rr - 2 * s * c * ri + c**2 * ii,
        c**2 * rr + 2 * s * c * ri + s**2 * ii,
    )
    return float((tangential / np.abs(truth.ravel()) ** 2).mean()), float(radial.mean())


@pytest.mark.parametrize("probe_known", [True, False])
@pytest.mark.parametrize("prior", [None, _steep_spectrum()], ids=["unbiased", "bayesian"])
def test_the_stochastic_errors_are_those_of_the_dense_inverse_within_their_stated_error(
    small, probe_known, prior
):
    region = WHOLE if probe_known else (slice(3, 10), slice(3, 12))
    found = bound_of(*small, WHOLE, prior, probe_known=probe_known, sign_vectors=6, tolerance=1e-2)
    phase, amplitude = _dense_mse(
        _dense_covariance(small, prior, probe_known, region), small[0][region]
    )
    assert (
        abs(found.phase.mse - phase) < 4 * found.phase.mse_error
        and found.phase.mse_error < 0.15 * phase
    )
    assert abs(found.amplitude.mse - amplitude) < 4 * found.amplitude.mse_error
    assert found.amplitude.mse_error < 0.15 * amplitude


def test_rings_and_frc_are_those_of_errors_drawn_from_the_dense_covariance(small):
    image, probe, x, y = small
    small = image, probe * 0.7, x, y
    found = bound_of(*small, WHOLE, sign_vectors=24, tolerance=1e-3)
    values, vectors = np.linalg.eigh(_dense_covariance(small))
    draws = np.random.default_rng(1).standard_normal((600, len(values)))
    errors = _complex(draws * np.sqrt(np.maximum(values, 0)) @ vectors.T).reshape(-1, *SHAPE)
    curves = [frc_curve(image + error, image).correlation for error in errors]
    assert found.frc == pytest.approx(np.mean(curves, 0), abs=0.03)
    assert found.frc.min() < 0.9
    window = np.outer(tukey(SHAPE[0], 0.25), tukey(SHAPE[1], 0.25))
    power = (np.abs(np.fft.fft2(window * (errors / image).imag)) ** 2).mean(0) / (window**2).sum()
    ring = np.rint(13 * np.hypot(np.fft.fftfreq(13)[:, None], np.fft.fftfreq(15))).astype(int)
    expected = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    assert found.phase.density == pytest.approx(expected[1:7], rel=0.15)


def test_an_efficient_estimator_spreads_as_much_as_the_bound():
    rng = np.random.default_rng(5)
    shape, size, draws = (30, 26), 16, 12
    parts = _field(rng, shape, 3.0)
    image = (1 + 0.15 * parts.real) * np.exp(1j * parts.imag)
    disc = np.hypot(*np.meshgrid(np.arange(16) - 7.5, np.arange(16) - 7.5)) < 6
    probe = (disc * np.exp(2j * np.pi * rng.random((size, size))))[None]
    probe *= (1e6 / (abs(probe) ** 2).sum()) ** 0.5
    y, x = (
        c.ravel() + 8
        for c in np.meshgrid(np.arange(0, 15, 2.0), np.arange(0, 11, 2.0), indexing="ij")
    )
    region = (slice(9, 21), slice(9, 17))
    bound = bound_of(image, probe, x, y, region, sign_vectors=8, tolerance=1e-3)

    one = _geometry(image, probe.astype(np.complex64), x, y)
    address = one.address.repeat(draws, 1)
    address[:, 0] = torch.arange(draws).repeat_interleave(len(x))
    start = torch.tensor(image).to(torch.complex64).expand(draws, *shape).contiguous()
    several = Geometry(address, one.residual_px.repeat(draws, 1), one.probe, tuple(start.shape))
    clean = torch.cat([several.expected(start, chunk) for chunk in several.chunks()])
    counts = draw_counts(clean, torch.Generator().manual_seed(2))
    patterns = Patterns(several, lambda i: counts[i])
    fits = canvas_steps(patterns, start, 150)
    truth = image[region]
    aligned = [align(fit.numpy()[region], truth).image for fit in fits]
    phase_mse = np.mean([np.angle(fit * truth.conj()) ** 2 for fit in aligned])
    amplitude_mse = np.mean([(abs(fit) - abs(truth)) ** 2 for fit in aligned])
    assert phase_mse == pytest.approx(bound.phase.mse, rel=0.1)
    assert amplitude_mse == pytest.approx(bound.amplitude.mse, rel=0.1)


def test_one_mode_tells_four_per_photon_of_the_two_directions_of_a_pixel(small):
    """Trace of F over a pixel's Re and Im = 4 sum |P|^2: closed form, whatever the object."""
    image, probe, x, y = small
    geometry = _geometry(image, probe[:1], x, y)
    information = Information(geometry, torch.tensor(image), WHOLE, None, True)
    pixels = torch.eye(image.size, dtype=torch.complex128)
    trace = sum(
        (information.apply(unit * pixels) * (unit * pixels).conj()).real.sum(1) for unit in (1, 1j)
    )
    assert torch.allclose(trace, 4 * geometry.fluence()[0].double().flatten(), rtol=1e-5)


@pytest.mark.parametrize("gauge", ["known_probe", "unknown_probe"])
def test_the_projector_removes_what_the_score_removes(gauge):
    rng = np.random.default_rng(7)
    parts = _field(rng, (58, 63), 5.0)
    truth = (1 + 0.3 * parts.real) * np.exp(1.5j * parts.imag)
    error = 1e-3 * _field(rng, truth.shape, 12.0) + 2e-4j * truth
    if gauge == "unknown_probe":
        error += 1e-4 * truth + 3e-5j * np.arange(63) * truth
    margin = 3 if gauge == "unknown_probe" else 0
    region = (slice(margin, 58 - margin), slice(margin, 63 - margin))
    remove = gauge_projector(torch.tensor(truth), region, gauge == "known_probe")
    left = remove(torch.tensor(error[region][None]))[0].numpy()
    scored = score(truth + error, truth, gauge)
    assert np.linalg.norm(left) < 0.8 * np.linalg.norm(error[region])
    assert np.mean((left / truth[region]).imag ** 2) == pytest.approx(scored["phase_mse"], rel=0.01)
    radial = (left * truth[region].conj() / abs(truth[region])).real
    assert np.mean(radial**2) == pytest.approx(scored["amplitude_mse"], rel=0.01)


def test_a_global_phase_of_the_object_changes_nothing(small):
    image, probe, x, y = small
    one, turned = (
        bound_of(image * phase, probe, x, y, WHOLE, tolerance=1e-6) for phase in (1, np.exp(2j))
    )
    assert turned.phase.mse == pytest.approx(one.phase.mse, rel=1e-4)
    assert turned.frc == pytest.approx(one.frc, rel=1e-4)


def test_the_unbiased_error_falls_with_dose_and_one_solve_tells_all_doses(small):
    image, probe, x, y = small
    scaled = bound_of(*small, WHOLE, tolerance=1e-5).at_dose(9)
    solved = bound_of(image, 3 * probe, x, y, WHOLE, tolerance=1e-5)
    assert scaled.photons_per_pixel == pytest.approx(solved.photons_per_pixel, rel=1e-3)
    assert scaled.frc == pytest.approx(solved.frc, rel=1e-3)
    for part in ("phase", "amplitude"):
        for name in ("mse", "mse_error", "psnr", "density"):
            one, other = (getattr(getattr(found, part), name) for found in (scaled, solved))
            assert one == pytest.approx(other, rel=1e-3), name


def test_a_prior_of_boundless_variance_leaves_the_unbiased_bound(small):
    unbiased = bound_of(*small, WHOLE, tolerance=1e-5)
    vague = bound_of(*small, WHOLE, _flat_spectrum(1e5, 1e5), tolerance=1e-5)
    assert vague.kind == "bayesian" and unbiased.kind == "unbiased"
    assert vague.phase.mse == pytest.approx(unbiased.phase.mse, rel=1e-3)
    assert vague.amplitude.mse == pytest.approx(unbiased.amplitude.mse, rel=1e-3)


def test_without_photons_the_bayesian_error_is_the_variance_of_the_class(small):
    image, probe, x, y = small
    dim = bound_of(
        image,
        1e-4 * probe,
        x,
        y,
        (slice(2, 11), slice(2, 13)),
        _flat_spectrum(0.003, 0.05),
        sign_vectors=64,
    )
    assert dim.amplitude.mse == pytest.approx(0.003, rel=0.02)
    assert dim.phase.mse == pytest.approx(0.05, rel=0.05)
    assert dim.frc.max() < 0.3


def test_a_prior_lowers_the_error_and_an_unknown_probe_raises_it(small):
    inner = (slice(3, 10), slice(3, 12))
    known, prior = (bound_of(*small, inner, spectrum) for spectrum in (None, _steep_spectrum()))
    unknown = bound_of(*small, WHOLE, probe_known=False)
    assert prior.phase.mse < known.phase.mse and prior.amplitude.mse < known.amplitude.mse
    assert unknown.amplitude.mse > known.amplitude.mse


def test_a_class_spectrum_is_that_of_the_field_it_was_measured_on():
    rng, shape, spectrum = np.random.default_rng(11), (90, 70), _steep_spectrum()
    amplitude, phase, cross = spectrum.on_grid((360, 280))
    fields = []
    for _ in range(24):
        one, other = np.fft.fft2(rng.standard_normal((2, 360, 280)))
        along, alone = cross / amplitude**0.5, np.sqrt(phase - cross**2 / amplitude)
        fields.append(np.fft.ifft2([amplitude**0.5 * one, along * one + alone * other]).real)
    objects = [((1 + a) * np.exp(1j * p))[: shape[0], : shape[1]] for a, p in fields]
    measured = class_spectrum(objects)
    for name in ("amplitude", "phase"):
        expected = np.interp(measured.frequency, spectrum.frequency, getattr(spectrum, name))
        assert getattr(measured, name)[3:40] == pytest.approx(expected[3:40], rel=0.15), name
    coherence = measured.cross / np.sqrt(measured.amplitude * measured.phase)
    expected = np.interp(measured.frequency, spectrum.frequency, np.linspace(0.9, -0.5, 20))
    assert coherence[3:40] == pytest.approx(expected[3:40], abs=0.1)
    assert measured.on_grid(shape)[0].mean() == pytest.approx(
        np.mean([a.var() for a, _ in fields]), rel=0.05
    )


def test_a_pure_phase_class_has_an_amplitude_spectrum_one_can_divide_by():
    phase = _field(np.random.default_rng(0), (40, 40), 4.0).imag
    assert class_spectrum([np.exp(1j * phase)]).on_grid((50, 60))[0].min() > 0


def test_a_class_of_one_material_tells_the_amplitude_from_the_phase(small):
    image, *rest = small
    together = _steep_spectrum()
    together = together._replace(cross=0.99 * np.sqrt(together.amplitude * together.phase))
    apart = together._replace(cross=np.zeros(20))
    bounds = [bound_of(image, *rest, WHOLE, prior) for prior in (together, apart)]
    assert bounds[0].amplitude.mse < 0.8 * bounds[1].amplitude.mse
    assert bounds[0].phase.mse < bounds[1].phase.mse


def test_the_bound_says_what_is_wrong(small):
    image, probe, x, y = small
    with pytest.raises(DataContractError, match="no more than .* fluence.*prior_spectrum"):
        bound_of(image, probe, x[:1], y[:1], WHOLE)
    with pytest.raises(PtychoError, match="after 2 iterations"):
        bound_of(*small, WHOLE, iterations=2)
    with pytest.raises(ConfigError, match="sign_vectors = 1"):
        bound_of(*small, WHOLE, sign_vectors=1)
    with pytest.raises(DataContractError, match=r"object is float64.*complex array \(H, W\)"):
        bound_of(image.real, probe, x, y, WHOLE)
    box = Geometry.of(torch.tensor(np.stack([y, x], 1)), torch.tensor(probe), (20, 20))
    with pytest.raises(DataContractError, match="whole=True"):
        limits(np.ones((20, 20), complex), box, WHOLE)
    with pytest.raises(DataContractError, match="none of them 0"):
        bound_of(image * (np.arange(15) > 3), probe, x, y, WHOLE)
    with pytest.raises(ConfigError, match="doesn't scale with dose"):
        bound_of(*small, WHOLE, _steep_spectrum()).at_dose(2)
    with pytest.raises(ConfigError, match="positive"):
        bound_of(*small, WHOLE).at_dose(0)
    with pytest.raises(DataContractError, match="one shape"):
        class_spectrum([image, image[1:]])
