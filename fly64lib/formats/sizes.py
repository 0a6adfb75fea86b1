"""Energy, distance and detector pixel: as options say, else as the file does, if that can be."""

from scipy.constants import c, e, h

from fly64lib.formats.options import ImportOptions
from fly64lib.formats.raw import RawScan

# name: option, its factor to SI (keV, m), least and largest that experiments have, in SI
_PLAUSIBLE = {
    "energy": ("energy_kev", 1.0, 0.02, 1e3),
    "distance": ("distance_m", 1.0, 1e-3, 200.0),
    "pixel": ("detector_pixel_um", 1e-6, 1e-7, 1e-2),
}
_OTHER = {"energy": (1.0, 1e-3), "distance": (1e-3, 1e-2), "pixel": (1e-6, 1e-3)}  # usual mistakes


def detector_step_per_m(raw: RawScan, options: ImportOptions) -> float | None:
    """Spatial frequency from one detector pixel to the next, in 1/m; None if it is not known.

    Refused where a size of the file cannot be an experiment's: it is in another unit."""
    found = {}
    for name, (option, factor, low, high) in _PLAUSIBLE.items():
        given = getattr(options, option)
        if given is not None:
            found[name] = given * factor
        elif size := raw.sizes.get(name):
            if not low <= size.si <= high:
                guesses = (size.value * unit for unit in _OTHER[name])
                likely = next((one for one in guesses if low <= one <= high), None)
                advice = f"{likely / factor:.6g}" if likely else "VALUE"
                text = f"{size.value:.6g}, to be read as {size.unit}; expected {low:g} ..."
                text += f" {high:g} {'keV' if name == 'energy' else 'm'}; it seems to be in another"
                flag = option.replace("_", "-")
                raise raw.refused(f"{text} unit: say it with --{flag} {advice}", size.key)
            found[name] = size.si
    asked = any(getattr(options, option) for option, *_ in _PLAUSIBLE.values())
    if len(found) < len(_PLAUSIBLE):
        missing = [
            f"--{_PLAUSIBLE[name][0].replace('_', '-')}" for name in _PLAUSIBLE.keys() - found
        ]
        if asked and raw.detector_step_per_m is None:
            text = f"the size of the object's pixel is not known from {', '.join(sorted(found))};"
            text += " expected energy, distance and detector pixel; give the others too:"
            raise raw.refused(f"{text} {' '.join(sorted(missing))}")
        return raw.detector_step_per_m
    return found["pixel"] * found["energy"] * 1e3 * e / (h * c * found["distance"])
